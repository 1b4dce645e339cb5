"""The tools an agent has, the same functions for a provider in this process and for the MCP server beside it.

`call` never raises for what a model does: a wrong argument, an unknown destination or a missing file is a text that
says so, with `is_error` set, so that the model can correct itself.
"""

from __future__ import annotations

from typing import Any

from agent_runner import log
from agent_runner.paths import Workspace
from agent_runner.tools import send_file, send_message, tasks
from agent_runner.tools.contract import Tool, ToolError, ToolResult
from agent_runner.tools.schema import check

__all__ = ["TOOLS", "Tool", "ToolError", "ToolResult", "call"]

TOOLS: tuple[Tool, ...] = (send_message.TOOL, send_file.TOOL, *tasks.TOOLS)


def call(workspace: Workspace, name: str, arguments: Any) -> ToolResult:
    """Run one tool; blocks until its rows are committed."""
    tool = next((tool for tool in TOOLS if tool.name == name), None)
    if tool is None:
        return ToolResult(f"Unknown tool: {name}")
    try:
        text = tool.run(workspace, check(tool.schema, arguments))
    except ToolError as error:
        log.warning("tool_refused", tool=name, reason=type(error).__name__)
        return ToolResult(f"Error: {error}", is_error=True)
    except Exception as error:  # a full disk or a locked database is the model's to know about, too
        log.error("tool_failed", tool=name, error=repr(error))
        return ToolResult(f"Error: {error}", is_error=True)
    log.info("tool_called", tool=name)
    return ToolResult(text)
