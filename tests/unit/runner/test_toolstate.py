"""Which of several running tools the host sees."""

from __future__ import annotations

from agent_runner.toolstate import RunningTool, ToolState

READ = RunningTool("Read", None, "")
SHORT = RunningTool("Bash", 1000, "")
LONG = RunningTool("Bash", 600_000, "")


def test_the_latest_tool_is_shown() -> None:
    """And the one before when it has ended."""
    state = ToolState()
    assert state.started("1", READ) == READ
    assert state.started("2", RunningTool("Grep", None, "")) == RunningTool("Grep", None, "")
    assert state.ended("2") == READ
    assert state.ended("1") is None


def test_a_shell_with_a_timeout_stays_in_sight() -> None:
    """Another tool that starts or ends beside it must not make it look stuck."""
    state = ToolState()
    state.started("1", LONG)
    assert state.started("2", READ) == LONG
    assert state.started("3", SHORT) == LONG
    assert state.ended("2") == LONG
    assert state.ended("1") == SHORT


def test_an_unknown_end_changes_nothing() -> None:
    """Events may come twice."""
    state = ToolState()
    state.started("1", READ)
    assert state.ended("x") == READ
    state.clear()
    assert state.shown() is None
