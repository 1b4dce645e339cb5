"""A row that agents died of is prompted alone."""

from __future__ import annotations

import pytest

from agent_runner.batching import apart
from agent_runner.rows import NOWHERE, InboundRow


def row(name: str, tries: int) -> InboundRow:
    return InboundRow(name, 2, "chat", "", True, NOWHERE, "{}", tries)


@pytest.mark.parametrize(
    ("tries", "taken"),
    [
        ([], 0),
        ([0, 0, 0], 3),
        # One death may have been anybody's.
        ([1, 1, 0], 3),
        ([2, 0, 0], 1),
        ([2, 2, 2], 1),
        # Those before a suspect go first, without it.
        ([0, 1, 2, 0], 2),
    ],
)
def test_the_rows_that_may_be_prompted_together(tries: list[int], taken: int) -> None:
    """From two deaths on a row is suspected."""
    rows = [row(str(at), count) for at, count in enumerate(tries)]
    assert list(apart(rows)) == rows[:taken]
