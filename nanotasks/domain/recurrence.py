"""When a schedule fires: one instant, an expression of a wall clock, or every so often.

    once    2026-12-01T09:00 in the series' zone, or with an offset of its own
    cron    0 9 * * mon-fri (`domain/cron.py`), by the wall clock of the series' zone
    every   every 15m: the anchor and each multiple after it, by elapsed time, whatever the clocks do

Where the clock is put forward, a time that does not exist fires at the first valid minute after the gap, and once,
however many of them there are. Where it is put back, a time that exists twice fires at the first of the two instants;
an expression that fires in every hour fires in both. Results are strictly after the moment they are asked for, in
milliseconds UTC, and follow the schedule, never the clock.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from nanotasks.domain.cron import ALIASES, Cron, ScheduleError, parse_cron

__all__ = [
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

KINDS = ("once", "cron", "every")
# The longest jump of a wall clock: Samoa left out a whole day.
_LONGEST_JUMP = timedelta(hours=25)
_MINUTE = timedelta(minutes=1)
_EPOCH = datetime(1970, 1, 1)
_LATEST = datetime(9990, 1, 1)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
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


class ZoneError(ValueError):
    """A name that is no time zone of the IANA database."""

    def __init__(self, name: str, suggestion: str | None) -> None:
        self.name = name
        self.suggestion = suggestion
        proposed = f"Did you mean {suggestion}?" if suggestion else "Use a name such as Europe/Berlin."
        super().__init__(f'"{name}" is no time zone. {proposed}')


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule. `anchor_ms` is where an every-N schedule counts from; it may be replaced.

    `wall` is the time of a single occurrence, naive where it is meant in the series' zone.
    """

    kind: str
    expression: str
    cron: Cron | None = None
    every_ms: int = 0
    anchor_ms: int = 0
    wall: datetime | None = None


@functools.lru_cache(maxsize=4096)
def parse(kind: str, expression: str) -> Schedule:
    """Parse an expression of a kind (`once`, `cron`, `every`). Raises `ScheduleError`."""
    if kind == "cron":
        return Schedule(kind, expression, cron=parse_cron(expression))
    if kind == "every":
        return Schedule(kind, expression, every_ms=_parse_every(expression))
    if kind == "once":
        return Schedule(kind, expression, wall=_parse_once(expression))
    raise ValueError(f"{kind!r} is no kind of schedule: use one of {', '.join(KINDS)}")


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
        at = _first_instant(schedule.wall, zone)
        return at if at > after else None
    assert schedule.cron is not None
    return _next_cron(schedule.cron, _zone(zone), after)


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


def check_zone(name: str) -> None:
    """Raise `ZoneError` unless this is the name of a time zone."""
    _zone(name)


def describe(schedule: Schedule, zone: str) -> str:
    """A schedule in a few words, such as `every day at 09:00`; an expression that is not simple as it is."""
    if schedule.every_ms:
        return f"every {_shortest(schedule.every_ms // 1000)}"
    if schedule.wall is not None:
        local = datetime.fromtimestamp(_first_instant(schedule.wall, zone) / 1000, _zone(zone))
        return f"once, {local:%Y-%m-%d %H:%M}"
    return _describe_cron(schedule.expression)


# Wall clocks


@functools.lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo("UTC" if name.lower() == "utc" else name)
    except (ValueError, OSError, KeyError) as error:
        known = {zone.lower(): zone for zone in available_timezones()}
        cities = {zone.rpartition("/")[2]: zone for zone in sorted(known, reverse=True)}
        wanted = name.strip().lower().replace(" ", "_")
        near = [known[wanted]] if wanted in known else [known[cities[wanted]]] if wanted in cities else []
        near = near or [known[one] for one in difflib.get_close_matches(wanted, known, n=1, cutoff=0.7)]
        near = near or [known[cities[one]] for one in difflib.get_close_matches(wanted, cities, n=1, cutoff=0.7)]
        raise ZoneError(name, near[0] if near else None) from error


def _ms(moment: datetime) -> int:
    """Milliseconds of a naive UTC time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def _utc(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)


def _offset(zone: ZoneInfo, utc: datetime) -> timedelta:
    """How far the wall clock is ahead of UTC at a naive UTC time."""
    return utc.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta()


def _instants(wall: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The UTC times at which the wall clock shows `wall`: one, two, or where it never does the first minute after."""
    before = wall.replace(tzinfo=zone, fold=0).utcoffset() or timedelta()
    after = wall.replace(tzinfo=zone, fold=1).utcoffset() or timedelta()
    if before == after:
        return (wall - before,)
    if before > after:
        return (wall - before, wall - after)
    return (_after_gap(wall - after, wall - before, zone),)


def _after_gap(earlier: datetime, later: datetime, zone: ZoneInfo) -> datetime:
    """The first whole minute of the wall clock after it was put forward, between two UTC times."""
    jumped = _offset(zone, later)
    low, high = earlier, later
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        low, high = (low, middle) if _offset(zone, middle) == jumped else (middle, high)
    change = (high if high.microsecond == 0 else high.replace(microsecond=0) + timedelta(seconds=1)) + jumped
    if _offset(zone, change - jumped - timedelta(seconds=1)) == jumped:
        change -= timedelta(seconds=1)
    whole = change.replace(second=0, microsecond=0)
    return (whole if whole == change else whole + _MINUTE) - jumped


def _first_instant(wall: datetime, zone: str) -> int:
    if wall.tzinfo is not None:
        return _ms(wall.astimezone(UTC).replace(tzinfo=None))
    return _ms(_instants(wall, _zone(zone))[0])


def _next_cron(cron: Cron, zone: ZoneInfo, after: int) -> int | None:
    moment = _utc(after)
    if moment > _LATEST:
        return None
    found: datetime | None = None
    for wall in _walls(cron, zone, moment):
        first, *rest = _instants(wall, zone)
        if found is not None and first >= found:
            break
        for instant in (first, *(rest if cron.is_hourly else ())):
            if instant > moment and (found is None or instant < found):
                found = instant
    return None if found is None else _ms(found)


def _walls(cron: Cron, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """The matching wall clock times in their order, from the first that may come after `moment`.

    A clock that shows `wall` is ahead of UTC by one of the offsets around it, so `wall - offset > moment`.
    """
    around = (moment - _LONGEST_JUMP, moment, moment + _LONGEST_JUMP)
    wall: datetime | None = moment + min(_offset(zone, one) for one in around)
    while wall is not None:
        wall = cron.first_from(wall)
        if wall is not None:
            yield wall
            wall += _MINUTE


# Other kinds


def _parse_every(expression: str) -> int:
    text = expression.strip()
    found = _EVERY.fullmatch(text)
    if found is None:
        position = len(expression) - len(expression.lstrip())
        if text.lower().startswith("every"):
            position += len("every")
        raise ScheduleError(expression, position, "it is no span of time", "every 15m")
    seconds = int(found["number"] or 1) * _UNITS[found["unit"][0].lower()]
    if not 1 <= seconds <= _MAX_EVERY_S:
        reason = "the span is nothing" if seconds < 1 else "the span is longer than ten years"
        raise ScheduleError(expression, expression.index(found["number"]), reason, "every 15m")
    return seconds * 1000


def _parse_once(expression: str) -> datetime:
    text = expression.strip()
    found = _ONCE.fullmatch(text)
    start = len(expression) - len(expression.lstrip())
    if found is None:
        raise ScheduleError(expression, start, "it is no date and time", "2030-12-24T18:00")
    try:
        wall = datetime.fromisoformat(f"{found['date']}T{found['time'] or '00:00'}")
        zone = found["zone"]
        if zone:
            wall = datetime.fromisoformat(wall.isoformat() + ("+00:00" if zone in "Zz" else zone))
    except ValueError as error:
        raise ScheduleError(expression, start, f"there is no such date and time ({error})") from error
    if not 1970 <= wall.year < _LATEST.year:
        raise ScheduleError(expression, start, "the year is out of range")
    return wall


def _shortest(seconds: int) -> str:
    for unit, length in sorted(_UNITS.items(), key=lambda pair: -pair[1]):
        if unit != "w" and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


_NAMED = {text: name.removeprefix("@") for name, text in ALIASES.items()}
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _describe_cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) != 5:
        return expression
    minute, hour, day, month, weekday = fields
    if month != "*" or day != "*" or not minute.isdecimal():
        return expression
    if hour == "*" and weekday == "*":
        return f"every hour at :{int(minute):02d}"
    if not hour.isdecimal():
        return expression
    at = f"{int(hour):02d}:{int(minute):02d}"
    if weekday == "*":
        return f"every day at {at}"
    if weekday.lower() in {"1-5", "mon-fri"}:
        return f"Monday to Friday at {at}"
    if weekday.isdecimal() and int(weekday) < len(_WEEKDAYS):
        return f"every {_WEEKDAYS[int(weekday)]} at {at}"
    return expression
