"""Time: integer milliseconds UTC for everything that is compared, ISO-8601 with `Z` for session files."""

from __future__ import annotations

import functools
import re
import time
from datetime import UTC, datetime

_NAIVE = re.compile(r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?$")


def now_ms() -> int:
    """Milliseconds since the epoch, UTC."""
    return time.time_ns() // 1_000_000


def iso(ms: int) -> str:
    """The session-file form of an instant: `2026-03-01T12:34:56.789Z`."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


@functools.lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def now_iso() -> str:
    """`iso(now_ms())`."""
    return iso(now_ms())


def parse_ms(text: str) -> int | None:
    """Milliseconds of an ISO-8601 or SQLite timestamp; text without a zone is UTC; None when unreadable."""
    candidate = text.strip()
    if _NAIVE.match(candidate):
        candidate += "+00:00" if len(candidate) > 10 else "T00:00:00+00:00"
    try:
        moment = datetime.fromisoformat(candidate)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
