"""Tables for a person's terminal: one line per row; what identifies a row is shown whole, the rest as far as there is
room.

An id that is cut or folded cannot be copied, so a table may become wider than the terminal before that happens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

GAP = 2
# A short word is shown whole, a longer text keeps so many characters at least.
_LEAST = 9
_ID = re.compile(r"[a-z]+-\d{6,}-[a-z0-9]+")


def widths(headings: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """The width of each column, in characters, in `room` characters with `GAP` between two columns."""
    wanted = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    least = [
        wide if _identifies(heading, [row[at] for row in rows]) else max(len(heading), min(wide, _LEAST))
        for at, (heading, wide) in enumerate(zip(headings, wanted, strict=True))
    ]
    spare = room - GAP * (len(wanted) - 1)
    while sum(wanted) > spare and wanted != least:
        # The column that can give most gives one character.
        widest = max(range(len(wanted)), key=lambda at: wanted[at] - least[at])
        wanted[widest] -= 1
    return wanted


def _identifies(heading: str, cells: Sequence[str]) -> bool:
    return heading == "ID" or any(_ID.fullmatch(cell) for cell in cells)


def cut(text: str, width: int) -> str:
    """The text, with an ellipsis where it had to be cut."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
