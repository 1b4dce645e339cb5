"""Reading the timestamps that agents and older hosts wrote into session files.

The forms the system writes itself are SQLite's `2026-03-01 12:34:56` and ISO-8601 with `Z`; a text without a
zone is UTC. NanoClaw 2 read them with JavaScript's `Date`, which takes more: slashes, one-digit fields, a day
past the end of its month, hour 24. Those are read the same way here; words and other calendars are not.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_STAMP = re.compile(
    r"\s*(?P<year>\d{4})"
    r"(?:[-/](?P<month>\d{1,2})(?:[-/](?P<day>\d{1,2})"
    r"(?:(?:[Tt]|\s+)(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:\.(?P<fraction>\d+))?)?)?)?)?"
    r"\s*(?:[Zz]|(?P<sign>[+-])(?P<off_hour>\d\d):?(?P<off_minute>\d\d))?",
    re.ASCII,
)


_AGE = re.compile(r"(\d{1,6})\s*([smhdw])", re.ASCII)
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def read_moment(text: str, now_ms: int) -> int | None:
    """A moment as a person gives it, in milliseconds: `2h` is two hours ago, all else a timestamp; None for neither."""
    age = _AGE.fullmatch(text.strip().lower())
    if age:
        return now_ms - int(age[1]) * _UNIT_MS[age[2]]
    return read_ms(text.strip())


def read_ms(text: str) -> int | None:
    """Milliseconds since the epoch, fractions cut off; None when the text is no timestamp."""
    found = _STAMP.fullmatch(text)
    if found is None:
        return None
    year, month, day = (int(found[name] or 1) for name in ("year", "month", "day"))
    hour, minute, second = (int(found[name] or 0) for name in ("hour", "minute", "second"))
    whole_day_only = hour != 24 or (minute == 0 and second == 0)
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour <= 24 and minute <= 59 and second <= 59 and whole_day_only):
        return None
    try:
        start = datetime(year, month, 1, tzinfo=UTC)
        moment = start + timedelta(days=day - 1, hours=hour, minutes=minute, seconds=second)
        if found["sign"]:
            offset = timedelta(hours=int(found["off_hour"]), minutes=int(found["off_minute"]))
            moment += offset if found["sign"] == "-" else -offset
    except (ValueError, OverflowError):
        return None
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1000 + int((found["fraction"] or "").ljust(3, "0")[:3])
