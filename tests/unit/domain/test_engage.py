"""When a wiring engages."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.engage import EngageFacts, default_engagement, engages, is_selective, pattern_matches


def facts(
    text: str = "hello",
    *,
    mention: bool = False,
    group: bool = True,
    thread: bool = True,
    engaged: bool = False,
) -> EngageFacts:
    return EngageFacts(text, mention, group, thread, engaged)


@pytest.mark.parametrize(
    ("mode", "pattern", "message", "expected"),
    [
        ("pattern", None, facts(), True),
        ("pattern", ".", facts(""), True),  # a lone dot is everything, not one character
        ("pattern", "", facts(), True),
        ("pattern", "hell", facts(), True),
        ("pattern", "Hell", facts(), False),  # case counts
        ("pattern", "bye", facts(mention=True), False),
        ("pattern", "[", facts(), True),  # imported and broken: it engaged, and goes on doing so
        ("mention", None, facts(mention=True), True),
        ("mention", None, facts(engaged=True), False),
        ("mention-sticky", None, facts(mention=True, group=False, thread=False), True),
        ("mention-sticky", None, facts(), False),
        ("mention-sticky", None, facts(engaged=True), True),
        ("mention-sticky", None, facts(engaged=True, group=False), False),
        ("mention-sticky", None, facts(engaged=True, thread=False), False),
        ("unheard-of", None, facts(mention=True, engaged=True), False),
    ],
)
def test_modes(mode: str, pattern: str | None, message: EngageFacts, expected: bool) -> None:
    """Each mode asks for one thing; an unknown one never engages."""
    assert engages(mode, pattern, message) is expected


def test_a_pattern_that_takes_too_long_does_not_match() -> None:
    """An exploding pattern is stopped at its time."""
    begun = time.monotonic()
    assert pattern_matches("(x+x+)+y", "x" * 2000, timeout_s=0.05) is False
    assert time.monotonic() - begun < 2


@given(st.text(max_size=40), st.text(max_size=40))
def test_engaging_never_raises(pattern: str, text: str) -> None:
    """Whatever stands in a wiring and whatever is said, there is an answer."""
    assert engages("pattern", pattern, facts(text)) in {True, False}


@pytest.mark.parametrize(
    ("mode", "pattern", "expected"), [("pattern", "x", True), ("pattern", ".", False), ("mention", "x", False)]
)
def test_only_real_patterns_are_run(mode: str, pattern: str, expected: bool) -> None:
    """A dot needs no running, and neither does what another mode has in its place."""
    assert is_selective(mode, pattern) is expected


@pytest.mark.parametrize(
    ("is_group", "supports_threads", "expected"),
    [
        (False, False, ("pattern", ".")),
        (False, True, ("pattern", ".")),
        (True, True, ("mention-sticky", None)),
        (True, False, ("mention", None)),  # without threads it would stick for ever
    ],
)
def test_what_a_chat_is_registered_with(
    is_group: bool, supports_threads: bool, expected: tuple[str, str | None]
) -> None:
    """All of a direct chat; mentions in a group, and the thread that follows where there are threads."""
    assert default_engagement(is_group=is_group, supports_threads=supports_threads) == expected
