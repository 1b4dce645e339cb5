"""When a schedule fires: one instant, an expression of a wall clock, or every so often.

    once    2026-12-01T09:00 in the series' zone, or with an offset of its own
    cron    0 9 * * mon-fri (`domain/cron.py`), by the wall clock of the series' zone
    every   every 15m: the anchor and each multiple after it, by elapsed time, whatever the clocks do

Where the clock is put forward, a time that does not exist fires at the first valid minute after the gap, and once,
however many of them there are. Where it is put back, a time that exists twice fires at the first of the two instants.
An expression that fires in every hour fires in both. Results are strictly after the moment they are asked for, in
milliseconds UTC, and follow the schedule, never the clock.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import TypeVar
from zoneinfo import ZoneInfo

from nanotasks.domain.cron import ALIASES, Cron, ScheduleError, parse_cron
from nanotasks.domain.zones import MINUTE, ZoneError, check_zone, first_instant, instants_of, offset_at, zone_named

__all__ = [
    "Kind",
    "Schedule",
    "ScheduleError",
    "ZoneError",
    "between",
    "check_zone",
    "describe",
    "next_fire",
    "next_of",
    "parse",
    "upcoming",
]

# Every minute, hour and day by its number has 400 characters; more is no schedule, and much more is an attack.
_MAX_EXPRESSION = 500
_T = TypeVar("_T")
# The longest jump of a wall clock: Samoa left out a whole day.
_LONGEST_JUMP = timedelta(hours=25)
_EPOCH = datetime(1970, 1, 1)
_LATEST = datetime(9990, 1, 1)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Rows are due by the second. A span under a minute is of use to whoever tries things out.
_MIN_EVERY_S = 1
_MAX_EVERY_S = 3660 * 86_400
_EVERY = re.compile(
    r"(?:every\s+)?(?:(?P<number>\d+)\s*)?"
    r"(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?)",
    re.IGNORECASE | re.ASCII,
)
_ONCE = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))?\s?(?P<zone>[Zz]|[+-]\d\d:?\d\d)?",
    re.ASCII,
)


class Kind(StrEnum):
    """What an expression is: one moment, a cron expression, or a span of time."""

    ONCE = "once"
    CRON = "cron"
    EVERY = "every"


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule. `anchor_ms` is where an every-N schedule counts from; it may be replaced.

    `wall` is the time of a single occurrence, naive where it is meant in the series' zone.
    """

    kind: Kind
    expression: str
    cron: Cron | None = None
    every_ms: int = 0
    anchor_ms: int = 0
    wall: datetime | None = None


@functools.lru_cache(maxsize=4096)
def parse(kind: str, expression: str) -> Schedule:
    """Parse an expression of a kind (`once`, `cron`, `every`). Raises `ScheduleError`, or `ValueError` for the kind."""
    if len(expression) > _MAX_EXPRESSION:
        reason = f"it has {len(expression)} characters, and {_MAX_EXPRESSION} are allowed"
        raise ScheduleError(expression[:40] + "…", _MAX_EXPRESSION, reason, fix="Make it shorter.")
    if kind == Kind.CRON:
        return Schedule(Kind.CRON, expression, cron=parse_cron(expression))
    if kind == Kind.EVERY:
        return Schedule(Kind.EVERY, expression, every_ms=_parse_every(expression))
    if kind == Kind.ONCE:
        return Schedule(Kind.ONCE, expression, wall=_parse_once(expression))
    raise ValueError(f"{kind!r} is no kind of schedule: use one of {', '.join(Kind)}")


def next_fire(expression: str, zone: str, after: int) -> int | None:
    """The first time at which a cron expression fires in a zone after a moment; None when it never does.

    Raises `ScheduleError` for an expression that cannot be parsed and `ZoneError` for an unknown zone.
    """
    return next_of(parse("cron", expression), zone, after)


def next_of(schedule: Schedule, zone: str, after: int) -> int | None:
    """The first time of a schedule after a moment; None when there is none."""
    if schedule.every_ms:
        passed = max(0, (after - schedule.anchor_ms) // schedule.every_ms + 1)
        return schedule.anchor_ms + passed * schedule.every_ms
    if schedule.wall is not None:
        at = _once_at(schedule.wall, zone)
        return at if at > after else None
    assert schedule.cron is not None
    return _next_cron(schedule.cron, zone_named(zone), after)


def upcoming(schedule: Schedule, zone: str, after: int, count: int) -> list[int]:
    """The next `count` times of a schedule after a moment, or fewer."""
    found: list[int] = []
    at: int | None = after
    while at is not None and len(found) < count:
        at = next_of(schedule, zone, at)
        if at is not None:
            found.append(at)
    return found


def between(schedule: Schedule, zone: str, start: int, end: int, limit: int) -> list[int]:
    """The times of a schedule from `start` on and before `end`, at most `limit` of them."""
    found: list[int] = []
    at = next_of(schedule, zone, start - 1)
    while at is not None and at < end and len(found) < limit:
        found.append(at)
        at = next_of(schedule, zone, at)
    return found


def describe(schedule: Schedule, zone: str) -> str:
    """A schedule in a few words, such as `every day at 09:00`; an expression that is not simple as it is."""
    if schedule.every_ms:
        return f"every {_shortest(schedule.every_ms // 1000)}"
    if schedule.wall is not None:
        local = datetime.fromtimestamp(_once_at(schedule.wall, zone) / 1000, zone_named(zone))
        return f"once, {local:%Y-%m-%d %H:%M}"
    return _describe_cron(schedule.expression)


# Wall clocks


def _ms(moment: datetime) -> int:
    """Milliseconds of a naive UTC time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _utc(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _once_at(wall: datetime, zone: str) -> int:
    if wall.tzinfo is not None:
        return _ms(wall.astimezone(UTC).replace(tzinfo=None))
    return _ms(first_instant(wall, zone_named(zone)))


def _next_cron(cron: Cron, zone: ZoneInfo, after: int) -> int | None:
    moment = _utc(after)
    if moment > _LATEST:
        return None
    found: datetime | None = None
    for wall in _walls(cron, zone, moment):
        first = (first_instant(wall, zone),)
        instants = (instants_of(wall, zone) or first) if cron.is_hourly else first
        if found is not None and instants[0] >= found:
            break
        for instant in instants:
            if instant > moment and (found is None or instant < found):
                found = instant
    return None if found is None else _ms(found)


def _walls(cron: Cron, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """The matching wall clock times in their order, from the first that may come after `moment`.

    A clock that shows `wall` is ahead of UTC by one of the offsets around it, so `wall - offset > moment`.
    """
    around = (moment - _LONGEST_JUMP, moment, moment + _LONGEST_JUMP)
    wall: datetime | None = moment + min(offset_at(zone, one) for one in around)
    while wall is not None:
        wall = cron.first_from(wall)
        if wall is not None:
            yield wall
            wall += MINUTE


# Other kinds


def _parse_every(expression: str) -> int:
    text = expression.strip()
    found = _EVERY.fullmatch(text)
    if found is None:
        span = re.sub(r"every(\s+|$)", "", text, flags=re.IGNORECASE) if text[:5].lower() == "every" else text
        position = len(expression.rstrip()) - len(span)
        raise ScheduleError(expression, position, "it is no span of time", "every 15m")
    seconds = int(found["number"] or 1) * _UNITS[found["unit"][0].lower()]
    if not _MIN_EVERY_S <= seconds <= _MAX_EVERY_S:
        reason = "the span is nothing" if seconds < _MIN_EVERY_S else "the span is longer than ten years"
        raise ScheduleError(expression, expression.index(found["number"]), reason, "every 15m")
    return seconds * 1000


def _parse_once(expression: str) -> datetime:
    text = expression.strip()
    found = _ONCE.fullmatch(text)
    start = len(expression) - len(expression.lstrip())
    if found is None:
        raise ScheduleError(expression, start, "it is no date and time", "2030-12-24T18:00")
    day = _read_part(expression, found, "date", date.fromisoformat)
    clock = _read_part(expression, found, "time", time.fromisoformat) if found["time"] else time()
    if not 1970 <= day.year < _LATEST.year:
        raise ScheduleError(expression, start, f"the year {day.year} is out of range", fix="Use 1970 or a later one.")
    if found["zone"]:
        clock = clock.replace(tzinfo=_read_part(expression, found, "zone", _read_offset))
    return datetime.combine(day, clock)


def _read_part(expression: str, found: re.Match[str], name: str, read: Callable[[str], _T]) -> _T:
    """One part of a date and time. Raises `ScheduleError` at its place for one that no calendar has."""
    text = found[name]
    try:
        return read(text)
    except ValueError as error:
        position = len(expression) - len(expression.lstrip()) + found.start(name)
        noun = "offset from UTC" if name == "zone" else name
        reason = f"there is no {noun} {text}"
        raise ScheduleError(expression, position, reason, fix="Use a form such as 2030-12-24T18:00.") from error


def _read_offset(text: str) -> tzinfo | None:
    return datetime.fromisoformat("2000-01-01T00:00" + ("+00:00" if text in "Zz" else text)).tzinfo


def _shortest(seconds: int) -> str:
    for unit, length in sorted(_UNITS.items(), key=lambda pair: -pair[1]):
        if unit != "w" and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_BY_NAME = {name[:3].lower(): name for name in _WEEKDAYS} | {str(number): name for number, name in enumerate(_WEEKDAYS)}


def _describe_cron(expression: str) -> str:
    fields = ALIASES.get(expression.strip().lower(), expression).split()
    if len(fields) != 5:
        return expression
    minute, hour, day, month, weekday = fields
    if month != "*" or day != "*":
        return expression
    if hour == "*" and weekday == "*" and (often := _describe_minutes(minute)):
        return often
    if not minute.isdecimal() or not hour.isdecimal():
        return expression
    at = f"{int(hour):02d}:{int(minute):02d}"
    if weekday == "*":
        return f"every day at {at}"
    if weekday.lower() in {"1-5", "mon-fri"}:
        return f"Monday to Friday at {at}"
    if weekday.lower() in _BY_NAME:
        return f"every {_BY_NAME[weekday.lower()]} at {at}"
    return expression


def _describe_minutes(minute: str) -> str | None:
    if minute.isdecimal():
        return f"every hour at :{int(minute):02d}"
    step = "1" if minute == "*" else minute.removeprefix("*/")
    # Other steps begin anew with each hour.
    if step.isdecimal() and 60 % int(step) == 0 and int(step) < 60:
        return "every minute" if int(step) == 1 else f"every {int(step)} minutes"
    return None
