"""Every shape of outbound content has a text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.channels.plain_text import as_text

CARD = {
    "title": "Trip",
    "description": "Two days",
    "children": ["by train", {"text": "second class"}, 5],
    "actions": [{"label": "Book", "url": "https://x.test"}, {"label": "No link"}, "bad"],
}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"text": "hello"}, "hello"),
        ({"markdown": "*hello*"}, "*hello*"),
        ({"text": "hello", "files": ["a.txt"]}, "hello"),
        ({"files": ["a.txt"]}, ""),
        ({}, ""),
        ({"text": 5}, "5"),
        ({"text": None, "markdown": "m"}, "m"),
        ({"operation": "edit", "messageId": "7", "text": "better"}, "(edited) better"),
        ({"operation": "reaction", "messageId": "7", "emoji": "👍"}, "(👍 to 7)"),
        (
            {"type": "ask_question", "title": "Lunch?", "question": "Which?", "options": ["Soup", {"label": "Fish"}]},
            "Lunch?\nWhich?\n  1. Soup\n  2. Fish",
        ),
        ({"type": "ask_question", "title": "Lunch?", "options": "no list"}, "Lunch?"),
        ({"type": "card", "card": CARD}, "Trip\nTwo days\nby train\nsecond class\n5\nBook: https://x.test"),
        ({"type": "card", "card": {}, "fallbackText": "a card"}, "a card"),
        ({"type": "card", "card": "bad", "fallbackText": "a card"}, "a card"),
        ({"anything": ["else"]}, '{"anything": ["else"]}'),
    ],
    ids=str,
)
def test_content_has_a_text(content: dict[str, Any], text: str) -> None:
    """Cards, questions, edits and reactions too, in words; what is not known is shown as it is."""
    assert as_text(content) == text


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["type", "card", "text", "options", "operation", "title", "emoji", "fallbackText"])
SHAPES = st.sampled_from(["card", "ask_question", "edit", "reaction"]) | ANYTHING


@given(st.dictionaries(NAMES, SHAPES))
def test_no_shape_is_too_strange(content: dict[str, Any]) -> None:
    """Agents write what they like."""
    assert isinstance(as_text(content), str)
