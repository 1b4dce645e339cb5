"""Time as the session files carry it and as a prompt shows it.

Stored times are UTC, also those without a zone (the host writes SQLite's `YYYY-MM-DD HH:MM:SS`).
Prompts show local time in the zone of the environment variable `TZ`.
"""

from __future__ import annotations

import functools
import os
import re
import time
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_STORED = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?")


def now_iso() -> str:
    """The present as `2026-02-04T18:30:00.123Z`."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def zone_name(wanted: str | None) -> str:
    """The first valid of `wanted`, the machine's own zone when `wanted` is empty, and `UTC`."""
    for candidate in (wanted,) if wanted else (_machine_zone(),):
        if candidate and _load(candidate) is not None:
            return candidate
    return "UTC"


@functools.cache
def local_zone() -> str:
    """The zone of this process, resolved once."""
    return zone_name(os.environ.get("TZ"))


def show(stored: str, zone: str) -> str:
    """`Feb 4, 2026, 1:30 PM` in `zone`, or `Invalid Date` for a text that is no time."""
    moment = parse(stored)
    if moment is None:
        return "Invalid Date"
    try:
        local = moment.astimezone(_load(zone) or UTC)
    except OverflowError:
        return "Invalid Date"
    hour = local.hour % 12 or 12
    half = "AM" if local.hour < 12 else "PM"
    return f"{_MONTHS[local.month - 1]} {local.day}, {local.year}, {hour}:{local.minute:02d} {half}"


def parse(stored: str) -> datetime | None:
    """A stored time; one without a zone is UTC. None for a text that is no time."""
    if not _STORED.fullmatch(stored):
        return None
    try:
        moment = datetime.fromisoformat(stored)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@functools.cache
def _load(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        # Without a zone database (a base image that lacks tzdata) only UTC can be shown.
        return UTC if name == "UTC" else None


def _machine_zone() -> str:
    link = os.path.realpath("/etc/localtime")
    return link.partition("/zoneinfo/")[2]
