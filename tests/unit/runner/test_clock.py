"""Times in session files and in prompts."""

from __future__ import annotations

import pytest

from agent_runner import clock


@pytest.mark.parametrize(
    ("stored", "zone", "shown"),
    [
        ("2026-02-04T18:30:00.000Z", "America/New_York", "Feb 4, 2026, 1:30 PM"),
        ("2026-06-15T12:00:00Z", "America/New_York", "Jun 15, 2026, 8:00 AM"),
        ("2026-06-15T12:00:00Z", "Asia/Tokyo", "Jun 15, 2026, 9:00 PM"),
        ("2026-02-04T00:05:00Z", "UTC", "Feb 4, 2026, 12:05 AM"),
        ("2026-02-04T12:00:00Z", "UTC", "Feb 4, 2026, 12:00 PM"),
        ("2026-03-01T12:00:00+05:30", "UTC", "Mar 1, 2026, 6:30 AM"),
        ("2026-03-01T12:00:00.123456789Z", "UTC", "Mar 1, 2026, 12:00 PM"),
        ("2026-02-04T18:30:00Z", "Not/AZone", "Feb 4, 2026, 6:30 PM"),
    ],
)
def test_a_time_is_shown_in_the_zone(stored: str, zone: str, shown: str) -> None:
    """English month, no padding, 12-hour clock, whatever the locale; an unknown zone is UTC."""
    assert clock.show(stored, zone) == shown


@pytest.mark.parametrize("stored", ["2026-02-04 18:30:00", "2026-02-04T18:30:00", "2026-02-04 18:30"])
def test_a_time_without_zone_is_utc(stored: str) -> None:
    """The host writes SQLite's text, which is UTC; NanoClaw 2 shows it as if it were local."""
    assert clock.show(stored, "America/New_York") == "Feb 4, 2026, 1:30 PM"


@pytest.mark.parametrize(
    "stored", ["", "garbage", "2026-13-45T00:00:00Z", "2026-02-30", "12:00", "2026-02-04T25:00:00Z"]
)
def test_what_is_no_time_says_so(stored: str) -> None:
    """The prompt is made all the same."""
    assert clock.show(stored, "UTC") == "Invalid Date"


@pytest.mark.parametrize("stored", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_the_edges_of_time_do_not_raise(stored: str) -> None:
    """A shift by the zone may leave the calendar."""
    assert clock.show(stored, "Pacific/Kiritimati")
    assert clock.show(stored, "America/New_York")


@pytest.mark.parametrize("name", ["Not/AZone", "IST-2", "XYZ+3", "../../etc/passwd", "/etc/passwd", "\0"])
def test_an_invalid_zone_is_utc(name: str) -> None:
    """What the environment says is not trusted to be a zone."""
    assert clock.zone_name(name) == "UTC"


@pytest.mark.parametrize("name", ["America/New_York", "UTC", "Asia/Kolkata"])
def test_a_valid_zone_is_used(name: str) -> None:
    """The name stands in every prompt."""
    assert clock.zone_name(name) == name


def test_without_a_zone_the_machines_own_is_used() -> None:
    """Never an empty name."""
    assert clock.zone_name("")
    assert clock.zone_name(None) == clock.zone_name("")


def test_now_has_milliseconds_and_z() -> None:
    """The form of every time this runner writes in ISO."""
    text = clock.now_iso()
    assert len(text) == len("2026-02-04T18:30:00.123Z")
    assert text.endswith("Z")
    assert clock.parse(text) is not None
