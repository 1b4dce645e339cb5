"""Which tool runs, as the one row of `container_state` that the host reads to tell a long command from a stuck agent.

Several tools may run at once but the row has room for one: it shows a `Bash` that declared a timeout, the longest
first, because that is the only thing that widens the host's patience; otherwise the tool that started last.
"""

from __future__ import annotations

from typing import NamedTuple


class RunningTool(NamedTuple):
    name: str
    timeout_ms: int | None
    started_at: str


class ToolState:
    """The running tools of one process by call id."""

    def __init__(self) -> None:
        self._running: dict[str, RunningTool] = {}

    def started(self, call_id: str, tool: RunningTool) -> RunningTool | None:
        self._running[call_id] = tool
        return self.shown()

    def ended(self, call_id: str) -> RunningTool | None:
        self._running.pop(call_id, None)
        return self.shown()

    def clear(self) -> None:
        self._running.clear()

    def shown(self) -> RunningTool | None:
        """The tool to show, or None when none runs."""
        bash = [tool for tool in self._running.values() if tool.name == "Bash" and tool.timeout_ms is not None]
        if bash:
            return max(bash, key=lambda tool: tool.timeout_ms or 0)
        return next(reversed(self._running.values()), None)
