"""When schedules fire, by recorded cases, by hand, and against an oracle that scans every minute."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanotasks.domain import recurrence
from nanotasks.domain.cron import parse_cron
from nanotasks.domain.recurrence import (
    Kind,
    ScheduleError,
    ZoneError,
    between,
    describe,
    next_fire,
    next_of,
    parse,
    upcoming,
)
from nanotasks.domain.vocabulary import SERIES_KINDS

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "cron.json").read_text())
MINUTE = 60_000
quick = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def ms(text: str) -> int:
    """Milliseconds of an ISO time, UTC where it names no zone."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def local(zone: str, text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['expr']} {case['tz']}")
def test_recorded_cases(case: dict[str, Any]) -> None:
    """What NanoClaw 2 does away from changes of the clock, it does here too; what it refuses is refused."""
    if "next" not in case:
        with pytest.raises(ScheduleError):
            parse("cron", case["expr"])
        return
    found = upcoming(parse("cron", case["expr"]), case["tz"], ms(case["ref"]), len(case["next"]))
    assert found == [ms(text) for text in case["next"]]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "fires"),
    [
        # Berlin, 29 March 2026: 02:00 is followed by 03:00.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("0,15,45 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]),
        ("0 2-3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:15Z", ["2026-03-29T00:30Z", "2026-03-29T01:00Z"]),
        ("30 */2 * * *", "Europe/Berlin", "2026-03-28T23:45Z", ["2026-03-29T01:00Z", "2026-03-29T02:30Z"]),
        # Berlin, 25 October 2026: 03:00 is followed by 02:00.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:45Z", ["2026-10-26T01:30Z"]),
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["2026-10-25T00:30Z", "2026-10-25T01:30Z"]),
        ("0,30 * * * *", "Europe/Berlin", "2026-10-25T00:15Z", ["2026-10-25T00:30Z", "2026-10-25T01:00Z"]),
        ("30 */2 * * *", "Europe/Berlin", "2026-10-25T00:15Z", ["2026-10-25T00:30Z", "2026-10-25T03:30Z"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25T00:00Z", ["2026-10-25T02:00Z"]),
        # Lord Howe moves by half an hour; Beirut and Sao Paulo at midnight; Samoa left out 30 December 2011.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00Z", ["2026-04-04T14:45Z", "2026-04-05T15:15Z"]),
        ("45 * * * *", "Australia/Lord_Howe", "2026-04-04T14:00Z", ["2026-04-04T14:45Z", "2026-04-04T15:15Z"]),
        ("30 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00Z", ["2018-11-04T03:00Z", "2018-11-05T02:30Z"]),
        ("30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00Z", ["2018-02-18T01:30Z", "2018-02-19T02:30Z"]),
        ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00Z", ["2026-03-28T22:00Z", "2026-03-29T21:00Z"]),
        ("0 10 * * *", "Pacific/Apia", "2011-12-29T12:00Z", ["2011-12-29T20:00Z", "2011-12-30T10:00Z"]),
        ("0 10 30 12 *", "Pacific/Apia", "2011-12-29T12:00Z", ["2011-12-30T10:00Z", "2012-12-29T20:00Z"]),
        ("0 * * * *", "Pacific/Apia", "2011-12-30T08:30Z", ["2011-12-30T09:00Z", "2011-12-30T10:00Z"]),
        # Monrovia was 44:30 behind until 7 January 1972, when 00:00 became 00:44:30.
        ("0 12 * * *", "Africa/Monrovia", "1972-01-05T00:00Z", ["1972-01-05T12:44:30Z", "1972-01-06T12:44:30Z"]),
        ("0 0 * * *", "Africa/Monrovia", "1972-01-06T12:00Z", ["1972-01-07T00:45Z", "1972-01-08T00:00Z"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00Z", ["2104-02-29T00:00Z"]),
        ("0 0 * 2 mon#5", "UTC", "2026-01-01T00:00Z", ["2044-02-29T00:00Z", "2072-02-29T00:00Z"]),
        ("0 0 * 2 mon#5", "UTC", "2072-03-01T00:00Z", ["2112-02-29T00:00Z", "2140-02-29T00:00Z"]),
        ("0 9 * * *,fri#2", "UTC", "2026-01-01T00:00Z", ["2026-01-01T09:00Z", "2026-01-02T09:00Z"]),
        ("0 9 *,L * *", "UTC", "2026-01-01T00:00Z", ["2026-01-01T09:00Z", "2026-01-02T09:00Z"]),
        ("0 9 L,15 * *", "UTC", "2026-01-01T00:00Z", ["2026-01-15T09:00Z", "2026-01-31T09:00Z"]),
        ("0 9 * Jan-MAR SAT-sun", "UTC", "2026-03-28T10:00Z", ["2026-03-29T09:00Z", "2027-01-02T09:00Z"]),
        ("0 9 * * FriL,mon", "UTC", "2026-01-27T00:00Z", ["2026-01-30T09:00Z", "2026-02-02T09:00Z"]),
        ("0 9 L * *", "UTC", "2026-01-31T10:00Z", ["2026-02-28T09:00Z", "2026-03-31T09:00Z"]),
        ("0 9 * * fri#2", "UTC", "2026-01-01T00:00Z", ["2026-01-09T09:00Z", "2026-02-13T09:00Z"]),
        ("0 9 * * 5L", "UTC", "2026-01-01T00:00Z", ["2026-01-30T09:00Z", "2026-02-27T09:00Z"]),
        ("0 9 1 * mon", "UTC", "2026-05-31T10:00Z", ["2026-06-01T09:00Z", "2026-06-08T09:00Z"]),
        ("@weekdays", "UTC", "2026-01-02T12:00Z", ["2026-01-05T00:00Z"]),
    ],
)
def test_fires(expression: str, zone: str, after: str, fires: list[str]) -> None:
    """In a gap at the first valid minute after, in a fold once, hourly in both; last days and nth weekdays."""
    found = upcoming(parse("cron", expression), zone, ms(after), len(fires))
    assert found == [ms(text) for text in fires]


@lru_cache
def changes(zone: str) -> tuple[datetime, ...]:
    """The changes of a zone's clock in ten years, found by halving, as UTC minutes."""
    info, found = ZoneInfo(zone), []
    step = timedelta(days=10)
    at = datetime(2020, 1, 1, tzinfo=UTC)
    while at.year < 2030:
        if at.astimezone(info).utcoffset() != (at + step).astimezone(info).utcoffset():
            low, high = at, at + step
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) // 2
                if middle.astimezone(info).utcoffset() == low.astimezone(info).utcoffset():
                    low = middle
                else:
                    high = middle
            found.append(high.replace(second=0, microsecond=0))
        at += step
    return tuple(found)


CHANGING = sorted(zone for zone in available_timezones() if changes(zone))


def scanned(expression: str, zone: str, start: datetime, hours: int) -> list[int]:
    """Every time at which an expression fires, found by looking at each minute of real time."""
    cron, info = parse_cron(expression), ZoneInfo(zone)
    minutes = [start + timedelta(minutes=number) for number in range(-5 * 60, (hours + 5) * 60)]
    shown: dict[datetime, list[datetime]] = {}
    for minute in minutes:
        shown.setdefault(minute.astimezone(info).replace(tzinfo=None, fold=0), []).append(minute)
    fired = set()
    wall = min(shown)
    while wall <= max(shown):
        if cron.first_from(wall) == wall:
            instants = shown.get(wall)
            if instants is None:  # the first minute whose clock has gone past it
                fired.add(next(one for one in minutes if one.astimezone(info).replace(tzinfo=None, fold=0) > wall))
            else:
                fired.update(instants if cron.is_hourly else instants[:1])
        wall += timedelta(minutes=1)
    end = start + timedelta(hours=hours)
    return sorted(round(one.timestamp() * 1000) for one in fired if start < one <= end)


FIELDS = st.sampled_from(["*", "0", "30", "*/15", "7,37", "59", "*/20"])
HOURS = st.sampled_from(["*", "0", "1", "2", "3", "23", "1-3", "*/2", "0,12"])
NARROW = st.sampled_from(["* * *", "* * *", "*/2 * *", "* * 0", "L * *"])


@settings(quick, max_examples=50)
@given(zone=st.sampled_from(CHANGING), data=st.data(), minute=FIELDS, hour=HOURS, rest=NARROW)
def test_every_zone_and_change(zone: str, data: st.DataObject, minute: str, hour: str, rest: str) -> None:
    """Around every change of the clock, what fires is what a scan of all minutes finds."""
    change = data.draw(st.sampled_from(changes(zone)))
    expression = f"{minute} {hour} {rest}"
    start = change - timedelta(hours=3)
    wanted = scanned(expression, zone, start, 6)
    schedule = parse("cron", expression)
    end = round((start + timedelta(hours=6)).timestamp() * 1000)
    found = between(schedule, zone, round(start.timestamp() * 1000) + 1, end + 1, 1000)
    assert found == wanted


@settings(quick, max_examples=300)
@given(
    zone=st.sampled_from(sorted(available_timezones())),
    after=st.integers(ms("2020-01-01"), ms("2030-01-01")),
    minute=FIELDS,
    hour=HOURS,
)
def test_time_goes_forward(zone: str, after: int, minute: str, hour: str) -> None:
    """The next time is after the moment, on a whole minute of the clock, and nothing lies between."""
    expression = f"{minute} {hour} * * *"
    first = next_fire(expression, zone, after)
    assert first is not None and first > after
    assert next_fire(expression, zone, first - 1) == first
    assert next_fire(expression, zone, (after + first) // 2 if first - after > 1 else after) == first
    assert first - after <= 26 * 3_600_000


def test_each_change_of_every_zone() -> None:
    """Over each change of every zone's clock: one run a day, whatever happens."""
    daily = parse("cron", "30 2 * * *")
    for zone in CHANGING:
        for change in changes(zone):
            start = round((change - timedelta(days=2)).timestamp() * 1000)
            fired = upcoming(daily, zone, start, 4)
            dates = [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).date() for at in fired]
            assert dates == [dates[0] + timedelta(days=number) for number in range(4)], (zone, change)


VALUES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 28), "month": (1, 12), "weekday": (0, 6)}


def field(name: str) -> st.SearchStrategy[str]:
    least, most = VALUES[name]
    number = st.integers(least, most)
    # croniter takes 0-0 in the last field for every day.
    pairs = st.tuples(number, number).filter(lambda pair: pair[0] != pair[1])
    span = pairs.map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.tuples(span, st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.one_of(st.just("*"), st.just("*"), number.map(str), span, step)


@settings(quick, max_examples=200)
@given(
    parts=st.tuples(*(field(name) for name in VALUES)),
    after=st.integers(ms("2020-01-01"), ms("2030-01-01")),
)
def test_another_library_agrees_in_utc(parts: tuple[str, ...], after: int) -> None:
    """Where no clock changes, croniter gives the same times."""
    expression = " ".join(parts)
    oracle = croniter(expression, datetime.fromtimestamp(after / 1000, UTC))
    wanted = [round(oracle.get_next(datetime).timestamp() * 1000) for _ in range(3)]
    assert upcoming(parse("cron", expression), "UTC", after, 3) == wanted


@pytest.mark.parametrize(
    ("expression", "position", "words", "suggestion"),
    [
        ("*/5 * * *", 9, "four|4 fields", "*/5 * * * *"),
        ("0 */5 * * * *", 0, "seconds are not supported", "*/5 * * * *"),
        ("60 * * * *", 0, "minute 60 is not between 0 and 59", "59 * * * *"),
        ("0 24 * * *", 2, "hour 24", "0 23 * * *"),
        ("0 9 * * mno", 8, "'mno' is no day of week", "0 9 * * mon"),
        ("0 9 * * monday", 8, "'monday' is no day of week", "0 9 * * mon"),
        ("0 9 1 january *", 6, "'january' is no month", "0 9 1 jan *"),
        ("*/0 * * * *", 2, "step of 0", "*/1 * * * *"),
        ("0 17-9 * * *", 2, "runs backwards", "0 17-23,0-9 * * *"),
        ("0 9 * * 1,,3", 8, "empty element", "0 9 * * 1,3"),
        ("5,1-10 * * * *", 1, "minute 5 is named twice", "5 * * * *"),
        ("0 0 30 2 *", 4, "day 30 comes in none of these months", "0 0 L 2 *"),
        ("0 0 ? * 1", 4, "is not supported", "0 0 * * 1"),
        ("0 9 * * mon#6", 12, "#1 to #5", "0 9 * * mon#1"),
        ("@dayly", 0, "no name @dayly", "@daily"),
        ("R R * * *", 0, "'R' is no minute", None),
        ("0 9 * * sat-mon", 8, "runs backwards", "0 9 * * 6,0-1"),
        ("0 9 * * 7-2", 8, "runs backwards", "0 9 * * 0-2"),
        ("0 9 15 oct-jan *", 7, "runs backwards", "0 9 15 10-12,1 *"),
        ("0 9 1L * *", 4, "'1L' is no day of month", "0 9 L * *"),
        ("0 9 31 apr,JUN *", 4, "day 31 comes in none of these months", "0 9 L apr,JUN *"),
        ("0 9 * * MNO", 8, "'MNO' is no day of week", "0 9 * * mon"),
        ("  0 9  *  * mno", 12, "'mno' is no day of week", "0 9  *  * mon"),
        ("0 9 0 * *", 4, "day of month 0 is not between 1 and 31", "0 9 1 * *"),
        ("0 9 * 13 *", 6, "month 13", "0 9 * 12 *"),
        ("0 9 * * 8", 8, "day of week 8", "0 9 * * 7"),
        ("1- * * * *", 2, "minute lacks a value", None),
        ("0,30,*/x * * * *", 7, "step 'x' is no number", None),
        ("@daily 9", 7, "nothing follows @daily", "@daily"),
        ("0 9 * * * * 2026", 10, "7 fields", "0 9 * * *"),
        ("9" * 5000 + " * * * *", 500, "5008 characters, and 500 are allowed", None),
        ("", 0, "0 fields", "0 9 * * *"),
        ("every day at nine", 17, "4 fields", None),
    ],
)
def test_refusals(expression: str, position: int, words: str, suggestion: str | None) -> None:
    """What cannot be parsed is refused with the place of the mistake and, where there is one, a suggestion."""
    with pytest.raises(ScheduleError, match=words) as refused:
        parse("cron", expression)
    assert (refused.value.position, refused.value.suggestion) == (position, suggestion)
    said = str(refused.value)
    assert f", at character {position + 1}. " in said and len(said) < 300
    if suggestion:
        parse("cron", suggestion)
        assert said.endswith(f'Did you mean "{suggestion}"?')
    else:
        assert said.endswith(("@daily.", "Make it shorter."))


def test_every_counts_from_its_anchor() -> None:
    """A span of time goes by elapsed time: the anchor itself, and each multiple after it."""
    schedule = recurrence.Schedule(Kind.EVERY, "every 90m", every_ms=90 * MINUTE, anchor_ms=1_000_000)
    assert next_of(schedule, "Europe/Berlin", 0) == 1_000_000
    assert next_of(schedule, "Europe/Berlin", 1_000_000) == 1_000_000 + 90 * MINUTE
    assert next_of(schedule, "Europe/Berlin", 1_000_000 + 91 * MINUTE) == 1_000_000 + 180 * MINUTE


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("every 15m", 900), ("2h", 7200), ("every 10 seconds", 10), ("every day", 86_400), ("Every 2 weeks", 1_209_600)],
)
def test_spans(text: str, seconds: int) -> None:
    """A span is a number and a unit, with or without `every`."""
    assert parse("every", text).every_ms == seconds * 1000


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("every", 5),
        ("every 0m", 6),
        ("soon", 0),
        ("15", 0),
        (" every  -5m ", 8),
        ("every 99999 weeks", 6),
        ("everyday", 0),
    ],
)
def test_spans_that_are_none(text: str, position: int) -> None:
    """Anything else is refused with a suggestion."""
    with pytest.raises(ScheduleError) as refused:
        parse("every", text)
    assert (refused.value.position, refused.value.suggestion) == (position, "every 15m")


def test_kinds() -> None:
    """A kind is a word of the stored vocabulary, and any other is a fault of the caller."""
    assert tuple(Kind) == SERIES_KINDS
    assert parse(Kind.CRON, "@daily") == parse("cron", "@daily")
    with pytest.raises(ValueError, match="no kind of schedule: use one of once, cron, every"):
        parse("weekly", "@weekly")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-12-01T09:00", "2026-12-01T08:00Z"),
        ("2026-12-01 09:00:30", "2026-12-01T08:00:30Z"),
        ("2026-12-01T09:00-05:00", "2026-12-01T14:00Z"),
        ("2026-12-01T09:00Z", "2026-12-01T09:00Z"),
        ("2026-12-01", "2026-11-30T23:00Z"),
        ("2026-03-29T02:30", "2026-03-29T01:00Z"),
        ("2026-10-25T02:30", "2026-10-25T00:30Z"),
    ],
)
def test_a_single_time(text: str, at: str) -> None:
    """One instant, by the wall clock of the zone unless it has its own offset; then never again."""
    schedule = parse("once", text)
    assert next_of(schedule, "Europe/Berlin", 0) == ms(at)
    assert next_of(schedule, "Europe/Berlin", ms(at)) is None


@pytest.mark.parametrize(
    ("text", "position", "words"),
    [
        ("tomorrow", 0, "no date and time"),
        ("", 0, "no date and time"),
        ("2026-W03-4", 0, "no date and time"),
        (" 2026-02-30T10:00", 1, "no date 2026-02-30"),
        ("2026-12-01T25:00", 11, "no time 25:00"),
        ("2026-12-01T09:00+99:00", 16, r"no offset from UTC \+99:00"),
        ("1888-01-01", 0, "year 1888 is out of range"),
    ],
)
def test_single_times_that_are_none(text: str, position: int, words: str) -> None:
    """What is no date and time is refused, with the place of the part that is wrong."""
    with pytest.raises(ScheduleError, match=words) as refused:
        parse("once", text)
    assert refused.value.position == position


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("berlin", "Europe/Berlin"), ("europe/berlin", "Europe/Berlin"), ("Europe/Berln", "Europe/Berlin"), ("x", None)],
)
def test_zones(name: str, suggestion: str | None) -> None:
    """A zone that is none is refused, with the one that was meant."""
    with pytest.raises(ZoneError) as refused:
        recurrence.check_zone(name)
    assert refused.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("kind", "expression", "words"),
    [
        ("cron", "0 9 * * *", "every day at 09:00"),
        ("cron", "30 18 * * 1-5", "Monday to Friday at 18:30"),
        ("cron", "0 9 * * 5", "every Friday at 09:00"),
        ("cron", "5 * * * *", "every hour at :05"),
        ("cron", "0 9 * * Fri", "every Friday at 09:00"),
        ("cron", "* * * * *", "every minute"),
        ("cron", "*/15 * * * *", "every 15 minutes"),
        ("cron", "*/25 * * * *", "*/25 * * * *"),
        ("cron", "*/60 * * * *", "*/60 * * * *"),
        ("cron", "@daily", "every day at 00:00"),
        ("cron", "@monthly", "@monthly"),
        ("cron", "*/5 9-17 * * *", "*/5 9-17 * * *"),
        ("every", "every 900s", "every 15m"),
        ("once", "2026-12-01T09:00", "once, 2026-12-01 09:00"),
    ],
)
def test_descriptions(kind: str, expression: str, words: str) -> None:
    """Simple schedules are said in words, others as they are."""
    assert describe(parse(kind, expression), "Europe/Berlin") == words
