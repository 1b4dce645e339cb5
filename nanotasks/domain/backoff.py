"""Growing pauses between attempts."""

from __future__ import annotations

_MAX_DOUBLINGS = 40


def doubled(base_ms: int, times: int) -> int:
    """`base_ms` doubled so many times; the count is bounded, since a row may have been tried for ever."""
    return base_ms << min(max(times, 0), _MAX_DOUBLINGS)


def jittered(failures: int, base_ms: int, max_ms: int, luck: float) -> int:
    """The pause after so many failures (from 1), in milliseconds.

    It doubles each time up to `max_ms`; `luck`, a random number in [0, 1), takes away up to a half of it, so that
    what failed together does not come back together.
    """
    full_ms = min(doubled(base_ms, failures - 1), max_ms)
    return full_ms - int(full_ms * luck / 2)
