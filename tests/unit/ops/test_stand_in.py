"""Whether a beat is silent is told by the ticks that were claimed."""

from __future__ import annotations

import pytest

from nanotasks.central import Database
from nanotasks.ops.stand_in import missing_ticks
from nanotasks.sweep import ticks

PERIODS = {"sweep.due": 10.0, "sweep.signals": 5.0}


@pytest.mark.parametrize(
    ("ages", "missing"),
    [
        ({"sweep.due": 3.0, "sweep.signals": 4.0}, []),
        # Late, as a busy worker may be: two periods are allowed.
        ({"sweep.due": 19.0, "sweep.signals": 10.0}, []),
        ({"sweep.due": 19.0, "sweep.signals": 10.1}, ["sweep.signals"]),
        # Never claimed.
        ({"sweep.due": 1.0}, ["sweep.signals"]),
        ({}, ["sweep.due", "sweep.signals"]),
    ],
)
def test_ticks_that_nobody_claimed_for_two_periods_are_missing(ages: dict[str, float], missing: list[str]) -> None:
    """Each by its own period."""
    assert missing_ticks(ages, PERIODS, 3600.0) == missing


@pytest.mark.parametrize(
    ("watched_s", "missing"),
    [(9.0, []), (10.1, ["sweep.signals"]), (20.1, ["sweep.due", "sweep.signals"])],
)
def test_a_tick_is_not_missed_before_it_was_watched(watched_s: float, missing: list[str]) -> None:
    """After a start each tick has two of its own periods; a slow one does not hold up a quick one."""
    assert missing_ticks({}, PERIODS, watched_s) == missing


def test_the_age_of_a_tick_is_that_of_its_last_claim(central: Database) -> None:
    """On the clock of the database."""
    assert ticks.ages_s(central) == {}
    assert ticks.claim(central, "sweep.due", 10)
    assert 0 <= ticks.ages_s(central)["sweep.due"] < 5
