"""What becomes of occurrences whose time has passed while nobody could take them.

An occurrence is late once it is older than the grace; until then it is on time. The late ones of a series end by its
misfire policy, all those before some moment as `missed`:

    skip      every late one is missed
    run_once  the newest one runs for all of them, unless it is older than the window
    run_all   each one runs, unless it is older than the window

What follows is the first occurrence that is not missed, in the past or in the future. Times follow the schedule, never
the clock. Milliseconds UTC.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# Missed occurrences that are listed one by one; a series of every minute misses half a million in a year.
LISTED = 1000

# How far back the newest occurrence before a moment is looked for, step by step.
_LOOKBACK_MS = tuple(hours * 3_600_000 for hours in (1, 24, 24 * 8, 24 * 32, 24 * 370, 24 * 366 * 8, 24 * 366 * 41))

NextAfter = Callable[[int], int | None]


@dataclass(frozen=True)
class Misfire:
    """A series' policy. `window_ms` None: however late."""

    policy: str = "run_once"
    window_ms: int | None = None
    grace_ms: int = 60_000


@dataclass(frozen=True)
class Plan:
    """The occurrence that follows (None: there is none), and those that were missed before it.

    `unlisted_until` is set when there were more than `LISTED`: the time of the last one that is not in `missed`.
    """

    next_at: int | None
    missed: tuple[int, ...] = ()
    unlisted_until: int | None = None


def plan(first: int | None, next_after: NextAfter, now: int, misfire: Misfire) -> Plan:
    """What follows, where `first` is the earliest occurrence that nobody has taken or decided on yet."""
    if first is None or first >= now - misfire.grace_ms:
        return Plan(first)
    boundary = _boundary(first, next_after, now, misfire)
    following = first if first >= boundary else next_after(boundary - 1)
    missed: list[int] = []
    at: int | None = first
    while at is not None and at < boundary and len(missed) < LISTED:
        missed.append(at)
        at = next_after(at)
    if at is None or at >= boundary:
        return Plan(following, tuple(missed))
    return Plan(following, tuple(missed), last_until(next_after, boundary - 1))


def last_until(next_after: NextAfter, moment: int) -> int | None:
    """The newest occurrence that is not after `moment`; None when there is none within 41 years."""
    for lookback in _LOOKBACK_MS:
        at = next_after(moment - lookback)
        if at is not None and at <= moment:
            return _walk(next_after, at, moment)
    return None


def _walk(next_after: NextAfter, at: int, moment: int) -> int:
    while (following := next_after(at)) is not None and following <= moment:
        at = following
    return at


def _boundary(first: int, next_after: NextAfter, now: int, misfire: Misfire) -> int:
    """The moment before which occurrences are missed."""
    on_time = now - misfire.grace_ms
    oldest = first if misfire.window_ms is None else now - misfire.window_ms
    if misfire.policy == "run_all":
        return min(on_time, oldest)
    if misfire.policy == "run_once":
        newest = last_until(next_after, now)
        newest = first if newest is None else max(first, newest)
        return newest if newest >= min(on_time, oldest) else on_time
    return on_time
