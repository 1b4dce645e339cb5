"""A moment is given as an age, or as a timestamp."""

from __future__ import annotations

import pytest

from nanotasks.domain.timestamps import read_moment

NOW = 1_772_366_096_000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("30s", NOW - 30_000),
        ("5m", NOW - 300_000),
        ("2h", NOW - 7_200_000),
        (" 3D ", NOW - 259_200_000),
        ("1w", NOW - 604_800_000),
        ("2026-03-01T11:54:56Z", NOW),
        ("2026-03-01", NOW - 11 * 3_600_000 - 54 * 60_000 - 56_000),
        ("2x", None),
        ("", None),
        ("h", None),
        ("-2h", None),
    ],
)
def test_a_moment_as_a_person_gives_it(text: str, moment: int | None) -> None:
    """In milliseconds UTC; None for what is neither."""
    assert read_moment(text, NOW) == moment
