"""What a tool is: a name, a description and a schema for the model, and a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from agent_runner.paths import Workspace


class ToolError(Exception):
    """The call cannot be carried out; the text is for the model."""


class ToolResult(NamedTuple):
    text: str
    is_error: bool = False


class Tool(NamedTuple):
    """`run` gets checked arguments (absent ones left out) and returns the text of success. Raises `ToolError`."""

    name: str
    description: str
    schema: dict[str, Any]
    run: Callable[[Workspace, dict[str, Any]], str]
