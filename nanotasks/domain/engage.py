"""Whether a wiring engages with a message (NanoClaw 2's three modes, mended).

    pattern          the pattern is found in the text; none, or a single `.`, means always
    mention          the platform says that the bot was addressed
    mention-sticky   as mention, and afterwards every message of that thread; only in threads of groups, and only
                     once the agent really engaged there: what it merely overheard binds it to nothing

A pattern is checked when it is set (`compile_pattern`). One that cannot be understood can still stand in a
wiring that was imported from NanoClaw 2; there it engaged with everything, and it does so here, so that no
assistant falls silent by being moved. A pattern that takes longer than its time on a message did not match it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nanotasks.domain.pattern import PatternError, compile_pattern, units

ALWAYS = "."


@dataclass(frozen=True)
class EngageFacts:
    """What a message and its place say. `thread_engaged`: this wiring's agent was woken in this very thread before."""

    text: str
    is_mention: bool
    is_group: bool
    in_thread: bool
    thread_engaged: bool = False


def pattern_matches(pattern: str, text: str, timeout_s: float = 0.1) -> bool:
    """Whether the pattern is found in the text within `timeout_s` seconds. Never raises."""
    try:
        compiled = compile_pattern(pattern)
    except PatternError:
        return True
    try:
        return compiled.search(units(text), timeout=timeout_s, concurrent=True) is not None
    except TimeoutError:
        return False


def engages(
    mode: str, pattern: str | None, facts: EngageFacts, matches: Callable[[str, str], bool] = pattern_matches
) -> bool:
    """Whether the wiring engages; an unknown mode never does. `matches` is asked for a real pattern only."""
    if mode == "pattern":
        return not is_selective(mode, pattern) or matches(pattern or ALWAYS, facts.text)
    if mode == "mention-sticky":
        sticks = facts.is_group and facts.in_thread and facts.thread_engaged
        return facts.is_mention or sticks
    return mode == "mention" and facts.is_mention


def is_selective(mode: str, pattern: str | None) -> bool:
    """Whether a pattern has to be run to decide."""
    return mode == "pattern" and pattern is not None and pattern not in {"", ALWAYS}


def default_engagement(*, is_group: bool, supports_threads: bool) -> tuple[str, str | None]:
    """Mode and pattern of a wiring that is made without any: all of a direct chat, and mentions in a group.

    In a group with threads the agent stays in the thread where it was mentioned; without threads it would stay
    for ever, so it answers mentions only.
    """
    if not is_group:
        return "pattern", ALWAYS
    return ("mention-sticky" if supports_threads else "mention"), None
