"""Reading the time that an agent gives for a task.

With an offset it is that instant; without one it is a wall clock time in the zone of the session, or the one that the
agent names. Where the clock is put forward, a time that does not exist is the first valid minute after; where it is
put back, the first of the two. The forms are those NanoClaw 2 takes, which are JavaScript's: ISO 8601 with a `T`, a day
past the end of its month rolls over, and `MM/DD/YYYY` or `YYYY-MM-DD` with a blank before the time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_ISO = re.compile(
    r"(?P<year>\d{4}|[+-]\d{6})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d))?)?"
    r"(?:[Tt ](?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?)?"
    r"(?P<offset>Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_AMERICAN = re.compile(
    r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})"
    r"(?: (?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1)
_END = datetime(9999, 12, 31)
_YEAR_10000_MS = 253_402_300_800_000


def read(text: str, zone: str) -> str | None:
    """The time as `YYYY-MM-DDTHH:MM:SS.mmmZ`; None for a text that is none. Raises `ValueError` for no zone."""
    found = _ISO.fullmatch(text) or _AMERICAN.fullmatch(text)
    if found is None:
        return None
    parts = found.groupdict()
    wall, day_ms = _wall(parts)
    if wall is None:
        return None
    offset = parts.get("offset")
    if offset:
        shift = _shift(offset)
        return None if shift is None else _iso(_ms(wall) + day_ms - shift)
    return _iso(_local_ms(wall, day_ms, load(zone)))


def load(zone: str) -> tzinfo:
    """The zone. Raises `ValueError` where there is none of that name."""
    try:
        return ZoneInfo(zone)
    except (OSError, KeyError, ValueError) as error:
        if zone == "UTC":
            return UTC
        raise ValueError(f"unknown zone: {zone}") from error


def _wall(parts: dict[str, str | None]) -> tuple[datetime | None, int]:
    """The day, and the milliseconds since its midnight; None where a field is out of range."""
    year, month, day = int(parts["year"] or 0), int(parts["month"] or 1), int(parts["day"] or 1)
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    if not (1 <= month <= 12 and 1 <= day <= 31 and minute < 60 and second < 60 and 1 <= year <= 9999):
        return None, 0
    if hour > 24 or (hour == 24 and (minute or second)):
        return None, 0
    fraction = ((parts.get("fraction") or "") + "000")[:3]
    try:
        date = datetime(year, month, 1) + timedelta(days=day - 1)
    except OverflowError:
        return None, 0
    return date, ((hour * 60 + minute) * 60 + second) * 1000 + int(fraction)


def _local_ms(date: datetime, day_ms: int, zone: tzinfo) -> int:
    wall_ms = _ms(date) + day_ms
    wall = _END.replace(day=30) if date >= _END else date + timedelta(milliseconds=day_ms)
    before, after = (_offset_ms(wall.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if after <= before:
        return wall_ms - before
    # In a gap: the clock jumps somewhere between these two instants, and the time is the first minute after.
    low, high = wall_ms - after, wall_ms - before
    while high - low > 1000:
        middle = (low + high) // 2
        low, high = (low, middle) if _offset_at(middle, zone) == after else (middle, high)
    return -(-(high - high % 1000) // 60_000) * 60_000 if after % 60_000 == 0 else high


def _offset_ms(moment: datetime) -> int:
    return (moment.utcoffset() or timedelta()) // timedelta(milliseconds=1)


def _offset_at(ms: int, zone: tzinfo) -> int:
    return _offset_ms((_EPOCH + timedelta(milliseconds=ms)).replace(tzinfo=UTC).astimezone(zone))


def _ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _shift(offset: str) -> int | None:
    if offset == "Z":
        return 0
    hours, minutes = int(offset[1:3]), int(offset[-2:])
    if hours > 23 or minutes > 59:
        return None
    return (hours * 60 + minutes) * (60_000 if offset[0] == "+" else -60_000)


def _iso(ms: int) -> str:
    if ms >= _YEAR_10000_MS:
        return "+0" + _iso(ms - _YEAR_10000_MS + _ms(datetime(1000, 1, 1))).replace("1000-", "10000-", 1)
    moment = _EPOCH + timedelta(milliseconds=ms)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"
