"""Tables for a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.ops.cli.tables import GAP, cut, widths

ID = "sess-1795682201625-yid3ax"


@pytest.mark.parametrize("room", [120, 80, 60, 20])
def test_what_identifies_a_row_is_shown_whole(room: int) -> None:
    """An id that is cut cannot be copied; and no heading is cut either."""
    found = widths(["STATE", "ID", "SESSION", "TEXT"], [["dead", "x", ID, "a long text " * 20]], room)
    assert found[1] >= 2
    assert found[2] == len(ID)
    assert (found[0], found[3]) >= (len("STATE"), len("TEXT"))


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=5), st.integers(40, 200))
def test_a_table_fits_where_it_can(rows: list[list[str]], room: int) -> None:
    """Columns give way, the widest first."""
    found = widths(["A", "B", "C"], rows, room)
    assert sum(found) + 2 * GAP <= max(room, 3 * 9 + 2 * GAP)


def test_a_text_that_does_not_fit_is_seen_to_be_cut() -> None:
    """It ends with an ellipsis."""
    assert (cut("abcdef", 4), cut("abcd", 4)) == ("abc…", "abcd")
