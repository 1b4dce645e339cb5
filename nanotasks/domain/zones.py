"""Time zones of the IANA database, and the instants at which their wall clocks show a time.

Where a clock is put forward, the times it leaves out stand for the first valid minute after the gap; where it is put
back, a time that it shows twice has two instants, the earlier one first.
"""

from __future__ import annotations

import difflib
import functools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

MINUTE = timedelta(minutes=1)
_SHOWN = 60


class ZoneError(ValueError):
    """A name that is no time zone of the IANA database."""

    def __init__(self, name: str, suggestion: str | None) -> None:
        self.name = name
        self.suggestion = suggestion
        shown = name if len(name) <= _SHOWN else name[:_SHOWN] + "…"
        proposed = f"Did you mean {suggestion}?" if suggestion else "Use a name such as Europe/Berlin."
        super().__init__(f'"{shown}" is no time zone. {proposed}')


def check_zone(name: str) -> None:
    """Raise `ZoneError` unless this is the name of a time zone."""
    zone_named(name)


@functools.lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo:
    """The zone of a name. Raises `ZoneError`, with the zone that was meant where one is near."""
    try:
        return ZoneInfo("UTC" if name.lower() == "utc" else name)
    except (ValueError, OSError, KeyError) as error:
        raise ZoneError(name, _nearest(name[:_SHOWN])) from error


def _nearest(name: str) -> str | None:
    """The zone of that name in another case, or of that city, else the one whose name is most like it."""
    known = {zone.lower(): zone for zone in available_timezones()}
    cities = {zone.rpartition("/")[2]: zone for zone in sorted(known, reverse=True)}
    wanted = name.strip().lower().replace(" ", "_")
    if wanted in known:
        return known[wanted]
    if wanted in cities:
        return known[cities[wanted]]
    if near := difflib.get_close_matches(wanted, known, n=1, cutoff=0.7):
        return known[near[0]]
    if near := difflib.get_close_matches(wanted, cities, n=1, cutoff=0.7):
        return known[cities[near[0]]]
    return None


def offset_at(zone: ZoneInfo, utc: datetime) -> timedelta:
    """How far the wall clock is ahead of UTC at a naive UTC time."""
    return utc.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta()


def instants_of(wall: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
    """The naive UTC times at which the clock shows `wall`: one, two, or none where it leaves that time out."""
    before, after = _offsets(wall, zone)
    if before == after:
        return (wall - before,)
    return (wall - before, wall - after) if before > after else ()


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first naive UTC time at which the clock shows `wall`, or the first valid minute after the gap it is in."""
    before, after = _offsets(wall, zone)
    return wall - before if before >= after else _after_gap(wall - after, wall - before, zone)


def _offsets(wall: datetime, zone: ZoneInfo) -> tuple[timedelta, timedelta]:
    """The offsets before and after a change of the clock that `wall` is in; twice the same where it is in none."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1))
    return first, second


def _after_gap(earlier: datetime, later: datetime, zone: ZoneInfo) -> datetime:
    """The first whole minute of the wall clock after it was put forward, between two UTC times."""
    jumped = offset_at(zone, later)
    low, high = earlier, later
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        low, high = (low, middle) if offset_at(zone, middle) == jumped else (middle, high)
    change = (high if high.microsecond == 0 else high.replace(microsecond=0) + timedelta(seconds=1)) + jumped
    if offset_at(zone, change - jumped - timedelta(seconds=1)) == jumped:
        change -= timedelta(seconds=1)
    whole = change.replace(second=0, microsecond=0)
    return (whole if whole == change else whole + MINUTE) - jumped
