"""Five-field cron expressions: what they say about a wall clock, and where they are wrong.

    minute 0-59   hour 0-23   day of month 1-31 or L   month 1-12 or jan-dec   day of week 0-7 or sun-sat

Each field takes `*`, values, ranges, lists and steps; the day of the week also `5#2` (the second Friday) and `5L` (the
last one). Both days restricted means either (the rule of Vixie cron and of NanoClaw 2). `@daily` and its like are
names for expressions. Seconds, `?`, `W`, `H` and fewer than five fields, which some parsers take, are refused: what
they mean differs from parser to parser.
"""

from __future__ import annotations

import calendar
import difflib
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekdays": "0 0 * * 1-5",
    "@weekends": "0 0 * * 0,6",
    "@hourly": "0 * * * *",
    "@minutely": "* * * * *",
}
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIX = 'Use five fields, such as "0 9 * * mon-fri", or a name, such as @daily.'
_FIELD_NAMES = "minute, hour, day of month, month, day of week"
_LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# A February with five Mondays comes every 28 years, and every 40 where a century is no leap year.
_SEARCHED_MONTHS = 12 * 41


class ScheduleError(ValueError):
    """An expression that is no schedule: `reason`, the `position` of the mistake (from 0), and a `suggestion`.

    `fix` says what to do where there is no suggestion.
    """

    def __init__(
        self, expression: str, position: int, reason: str, suggestion: str | None = None, fix: str = ""
    ) -> None:
        self.expression = expression
        self.position = position
        self.reason = reason
        self.suggestion = suggestion
        proposed = f'Did you mean "{suggestion}"?' if suggestion else fix
        super().__init__(f'"{expression}" is no schedule: {reason}, at character {position + 1}. {proposed}'.rstrip())


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: dict[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _DAYS),
)


@dataclass(frozen=True)
class Cron:
    """A parsed expression. Days of the week count from Sunday = 0; `nth` are (weekday, which one), 0 for the last.

    `days` and `weekdays` are None where the field is `*`.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None
    last_day: bool
    months: frozenset[int]
    weekdays: frozenset[int] | None
    nth: frozenset[tuple[int, int]]

    @property
    def is_hourly(self) -> bool:
        """Whether it fires in every hour of the day, and so in both of two that have the same name."""
        return len(self.hours) == 24

    def first_from(self, wall: datetime) -> datetime | None:
        """The first matching minute that is not before `wall`, a naive wall clock time; None when none comes."""
        wall = _whole_minute(wall)
        year, month, first_day = wall.year, wall.month, wall.day
        for _ in range(_SEARCHED_MONTHS):
            if month in self.months:
                for day in self._days_from(year, month, first_day):
                    same_day = (year, month, day) == (wall.year, wall.month, wall.day)
                    time = self._time_from(wall.hour, wall.minute) if same_day else (self.hours[0], self.minutes[0])
                    if time is not None:
                        return datetime(year, month, day, *time)
            year, month, first_day = (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)
            if year > 9998:
                break
        return None

    def _time_from(self, hour: int, minute: int) -> tuple[int, int] | None:
        at = bisect_left(self.hours, hour)
        if at < len(self.hours) and self.hours[at] == hour:
            minute_at = bisect_left(self.minutes, minute)
            if minute_at < len(self.minutes):
                return hour, self.minutes[minute_at]
            at += 1
        return (self.hours[at], self.minutes[0]) if at < len(self.hours) else None

    def _days_from(self, year: int, month: int, first: int) -> Iterator[int]:
        first_weekday, length = calendar.monthrange(year, month)
        any_day = self.days is None and not self.last_day
        any_weekday = self.weekdays is None and not self.nth
        for day in range(first, length + 1):
            weekday = (first_weekday + day) % 7  # calendar counts from Monday, cron from Sunday
            by_day = not any_day and (day in (self.days or ()) or (self.last_day and day == length))
            by_weekday = not any_weekday and self._is_weekday(weekday, day, length)
            if by_day or by_weekday or (any_day and any_weekday):
                yield day

    def _is_weekday(self, weekday: int, day: int, length: int) -> bool:
        return (
            weekday in (self.weekdays or ())
            or (weekday, (day + 6) // 7) in self.nth
            or (day > length - 7 and (weekday, 0) in self.nth)
        )


class _Mistake(Exception):
    """What is wrong between two characters, and what could stand there instead (None: nobody knows)."""

    def __init__(self, start: int, end: int, reason: str, instead: str | None = None) -> None:
        super().__init__(reason)
        self.start, self.end, self.reason, self.instead = start, end, reason, instead


def parse_cron(text: str) -> Cron:
    """Parse an expression or an alias. Raises `ScheduleError`."""
    try:
        return _read(text)
    except _Mistake as mistake:
        suggestion = None
        if mistake.instead is not None:
            proposed = text[: mistake.start] + mistake.instead + text[mistake.end :]
            suggestion = proposed.strip() if _can_be_read(proposed) else None
        raise ScheduleError(text, mistake.start, mistake.reason, suggestion, _FIX) from None


def _can_be_read(text: str) -> bool:
    try:
        _read(text)
    except _Mistake:
        return False
    return True


def _read(text: str) -> Cron:
    parts = [(found.group(), found.start()) for found in re.finditer(r"\S+", text)]
    if parts and parts[0][0].startswith("@"):
        return _read(_named(text, parts))
    _require_five(text, parts)
    fields = [_read_field(field, part, start) for field, (part, start) in zip(_FIELDS, parts, strict=True)]
    minutes, hours, days, months, weekdays = (field.numbers for field in fields)
    cron = Cron(
        minutes=tuple(sorted(minutes or range(60))),
        hours=tuple(sorted(hours or range(24))),
        days=days,
        last_day=fields[2].last,
        months=months or frozenset(range(1, 13)),
        weekdays=None if weekdays is None else frozenset(day % 7 for day in weekdays),
        nth=frozenset((day % 7, which) for day, which in fields[4].nth),
    )
    _require_a_date(cron, *parts[2])
    return cron


def _named(text: str, parts: list[tuple[str, int]]) -> str:
    name, start = parts[0]
    if name.lower() in ALIASES and len(parts) == 1:
        return ALIASES[name.lower()]
    if name.lower() in ALIASES:
        raise _Mistake(parts[1][1], len(text), f"nothing follows {name}", "")
    near = difflib.get_close_matches(name.lower(), ALIASES, n=1)
    raise _Mistake(start, start + len(name), f"there is no name {name}", near[0] if near else None)


def _require_five(text: str, parts: list[tuple[str, int]]) -> None:
    count = len(parts)
    if count == 5:
        return
    reason = f"it has {count} field{'' if count == 1 else 's'}, and five are needed ({_FIELD_NAMES})"
    if count == 6:
        raise _Mistake(parts[0][1], parts[1][1], f"{reason}; seconds are not supported", "")
    if count > 6:
        raise _Mistake(parts[5][1], len(text), reason, "")
    end = len(text.rstrip())
    raise _Mistake(end, len(text), reason, " *" * (5 - count) if count else "0 9 * * *")


def _require_a_date(cron: Cron, part: str, start: int) -> None:
    if cron.days is None or cron.last_day or cron.weekdays is not None or cron.nth:
        return
    longest = max(_LONGEST[month] for month in cron.months)
    if min(cron.days) > longest:
        reason = f"the day {min(cron.days)} comes in none of these months"
        raise _Mistake(start, start + len(part), reason, "L")


@dataclass
class _Numbers:
    """What one field allows: `numbers`, None for all; `last` day; `nth` weekdays."""

    numbers: frozenset[int] | None = frozenset()
    last: bool = False
    nth: frozenset[tuple[int, int]] = frozenset()


def _read_field(field: _Field, part: str, start: int) -> _Numbers:
    found = _Numbers()
    seen: set[int] = set()
    everything = False
    elements = part.split(",")
    for number, element in enumerate(elements):
        if not element:
            whole = ",".join(one for one in elements if one)
            begin = start - sum(len(one) + 1 for one in elements[:number])
            raise _Mistake(begin, begin + len(part), f"the list of the {field.name} has an empty element", whole)
        one = _read_element(field, element, start)
        numbers = frozenset(range(field.least, field.most + 1)) if one.numbers is None else one.numbers
        # Steps share where they begin: `*/20,*/30` is no mistake, `5,1-10` is one.
        if common := (seen & numbers) - {0}:
            begin = start - 1 if number else start
            twice = f"the {field.name} {min(common)} is named twice"
            raise _Mistake(begin, start + len(element), twice, "")
        seen |= numbers
        everything = everything or one.numbers is None
        found = _Numbers(frozenset(seen), found.last or one.last, found.nth | one.nth)
        start += len(element) + 1
    return _Numbers(None) if everything else found


def _read_element(field: _Field, element: str, start: int) -> _Numbers:
    if field.name == "day of month" and element in {"L", "l"}:
        return _Numbers(last=True)
    if field.name == "day of week":
        nth = _read_nth(field, element, start)
        if nth is not None:
            return _Numbers(nth=frozenset({nth}))
    base, slash, step_text = element.partition("/")
    step = _read_step(step_text, start + len(base) + 1) if slash else 1
    if base == "*" and step == 1:
        return _Numbers(None)
    first, last = _read_range(field, base, start, stepped=bool(slash))
    return _Numbers(frozenset(range(first, last + 1, step)))


def _read_nth(field: _Field, element: str, start: int) -> tuple[int, int] | None:
    day, sharp, which = element.partition("#")
    if sharp:
        if which not in {"1", "2", "3", "4", "5"}:
            at = start + len(day) + 1
            raise _Mistake(at, at + len(which), "a month has #1 to #5 of a weekday", "1")
        return _read_value(field, day, start), int(which)
    if len(element) > 1 and element[-1] in "Ll":
        return _read_value(field, element[:-1], start), 0
    return None


def _read_range(field: _Field, base: str, start: int, *, stepped: bool) -> tuple[int, int]:
    most = 6 if field.name == "day of week" else field.most
    if base == "*":
        return field.least, most
    low, dash, high = base.partition("-")
    first = _read_value(field, low, start)
    if not dash:
        return first, max(first, most) if stepped else first
    last = _read_value(field, high, start + len(low) + 1)
    if field.name == "day of week" and last == 0 and first > 0:
        last = 7
    if last < first:
        until_end = "" if first > most else f"{first}," if first == most else f"{first}-{most},"
        instead = f"{until_end}{field.least}-{last}" if last > field.least else f"{until_end}{last}"
        raise _Mistake(start, start + len(base), f"the range {base} runs backwards", instead)
    return first, last


def _read_step(text: str, start: int) -> int:
    if not text.isdecimal() or not text.isascii():
        raise _Mistake(start, start + len(text), f"the step {text!r} is no number", "1")
    if int(text) == 0:
        raise _Mistake(start, start + len(text), "a step of 0 never moves on", "1")
    return int(text)


def _read_value(field: _Field, text: str, start: int) -> int:
    if text.lower() in field.names:
        return field.names[text.lower()]
    end = start + len(text)
    if text == "?":
        raise _Mistake(start, end, f"the {field.name} ? is not supported", "*")
    if not text:
        raise _Mistake(start, end, f"the {field.name} lacks a value", str(field.least))
    if not text.isdecimal() or not text.isascii():
        raise _Mistake(start, end, f"{text!r} is no {field.name}", _near(field, text.lower()))
    value = int(text)
    if not field.least <= value <= field.most:
        reason = f"the {field.name} {text} is not between {field.least} and {field.most}"
        raise _Mistake(start, end, reason, str(field.least if value < field.least else field.most))
    return value


def _near(field: _Field, text: str) -> str | None:
    if field.name == "day of month" and text.endswith("l") and text[:-1].isdecimal():
        return "L"
    if text[:3] in field.names:
        return text[:3]
    near = difflib.get_close_matches(text, field.names, n=1, cutoff=0.5)
    return near[0] if near else None


def _whole_minute(wall: datetime) -> datetime:
    """`wall`, or the next whole minute after it."""
    whole = wall.replace(second=0, microsecond=0)
    return whole if whole == wall else whole + timedelta(minutes=1)
