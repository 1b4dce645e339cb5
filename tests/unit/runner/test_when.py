"""Times that an agent gives, against what NanoClaw 2 stored (`tests/data/timeparse.json`), and where we differ."""

from __future__ import annotations

from typing import Any

import pytest

from agent_runner import clock
from agent_runner.tools import when
from tests.unit.runner.by_hand import recorded

# Where an hour comes twice, the original takes one or the other by the zone's distance from Greenwich.
TWICE = {("Europe/Paris", "2026-10-25T02:59:59"), ("Africa/Cairo", "2026-10-29T23:30:00")}
RECORDED = [case for case in recorded("timeparse") if (case["tz"], case["input"]) not in TWICE]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: f"{case['tz']} {case['input']}")
def test_recorded_times(case: dict[str, Any]) -> None:
    """The same instant, or refused."""
    assert when.read(case["input"], clock.zone_name(case["tz"])) == case.get("stored")


@pytest.mark.parametrize(
    ("text", "zone", "stored"),
    [
        # 02:00 is followed by 03:00: the first valid minute after.
        ("2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:00:00.000Z"),
        ("2026-03-29T01:30:00", "Europe/London", "2026-03-29T01:00:00.000Z"),
        ("2011-12-30T18:00:00", "Pacific/Apia", "2011-12-30T10:00:00.000Z"),
        # 03:00 is followed by 02:00: the first of the two.
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00.000Z"),
        # NanoClaw 2 takes the offset of some hours earlier.
        ("2026-03-08T03:00:00", "America/New_York", "2026-03-08T07:00:00.000Z"),
        ("2026-04-05T00:00:00", "Australia/Sydney", "2026-04-04T13:00:00.000Z"),
        # It counts milliseconds twice.
        ("2026-01-15T21:00:00.250", "UTC", "2026-01-15T21:00:00.250Z"),
    ],
)
def test_changes_of_the_clock(text: str, zone: str, stored: str) -> None:
    """Where the original stores another instant than the one that was meant."""
    assert when.read(text, zone) == stored


def test_an_unknown_zone() -> None:
    """It is an error, not UTC."""
    with pytest.raises(ValueError, match="unknown zone: Mars/Base"):
        when.read("2026-01-15T21:00", "Mars/Base")
