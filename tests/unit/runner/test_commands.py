"""Slash commands."""

from __future__ import annotations

from typing import Any

import pytest

from agent_runner.commands import classify, is_clear, raw_command
from agent_runner.rows import NOWHERE, InboundRow
from tests.unit.runner.by_hand import chat, recorded

RECORDED = [case for case in recorded("format")["cases"] if case.get("kind") == "command"]


def row(content: str, kind: str = "chat") -> InboundRow:
    return InboundRow("m1", 2, kind, "", True, NOWHERE, content)


@pytest.mark.parametrize("case", RECORDED, ids=lambda c: f"{c['row_kind']}-{c['content']}")
def test_recorded_classes(case: dict[str, Any]) -> None:
    """Category, command and text as NanoClaw 2 sees them."""
    command = classify(row(case["content"], case["row_kind"]))
    expected = case["out"]
    assert command == (expected["category"], expected["command"], expected["text"])
    if "is_clear" in case:
        assert is_clear(row(case["content"], case["row_kind"])) == case["is_clear"]
        assert (raw_command(row(case["content"], case["row_kind"])) is not None) == case["is_runner_command"]


@pytest.mark.parametrize("text", ["/clear", " /CLEAR ", "/clear now"])
def test_clear_is_a_command(text: str) -> None:
    """In any case, with any arguments."""
    assert is_clear(row(chat(text)))


@pytest.mark.parametrize(
    "text", ["/clearly", "please /clear", "/clear-all", "clear", "", "\x1f/clear", "/clear\x85now"]
)
def test_what_only_looks_like_clear_is_not(text: str) -> None:
    """NanoClaw 2 takes every text that begins with it."""
    assert not is_clear(row(chat(text)))


@pytest.mark.parametrize("content", ["null", "5", '{"text":5}', '{"text":null}', '{"text":["/clear"]}'])
def test_strange_content_is_no_command(content: str) -> None:
    """And no error either."""
    assert classify(row(content)).category == "none"


def test_only_chat_rows_carry_commands() -> None:
    """A task that speaks of one does not give it."""
    assert not is_clear(row(chat("/clear"), kind="task"))
    assert raw_command(row(chat("/compact"), kind="webhook")) is None
