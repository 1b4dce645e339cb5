"""Text as NanoClaw 2 (a JavaScript program) sees it, where Python's own idea differs.

Rows, names and commands written by either program are read by both, so trimming and splitting must agree:
JavaScript counts U+FEFF as white space and the separators U+001C to U+001F not, Python the other way round.
"""

from __future__ import annotations

import re

_SPACES = "".join(map(chr, range(0x2000, 0x200B)))
WHITESPACE = f"\t\n\v\f\r \u00a0\u1680{_SPACES}\u2028\u2029\u202f\u205f\u3000\ufeff"
_GAP = re.compile(f"[{WHITESPACE}]+")


def trim(value: str) -> str:
    """The text without white space at either end."""
    return value.strip(WHITESPACE)


def first_word(value: str) -> str:
    """What stands before the first white space of a trimmed text."""
    return _GAP.split(trim(value), maxsplit=1)[0]
