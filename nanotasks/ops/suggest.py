"""The nearest known word to a mistyped one, and parsers of closed vocabularies that suggest it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

from nanotasks.errors import UsageError


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, or None when nothing is close."""
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_bare(candidate), candidate)
    asked = _bare(word)
    if asked in folded:
        return folded[asked]
    close = difflib.get_close_matches(asked, folded, n=1, cutoff=0.6)
    if close:
        return folded[close[0]]
    beginning = [candidate for name, candidate in folded.items() if asked and name.startswith(asked)]
    return beginning[0] if len(beginning) == 1 else None


def _bare(word: str) -> str:
    return word.lower().replace("_", "-").lstrip("-")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean X?`, or an empty text."""
    found = nearest(word, known)
    return f"Did you mean {found}?" if found else ""


def one_of(known: Iterable[str], what: str) -> Callable[[str], str]:
    """A parser for `what` that takes only these words. Raises `UsageError` with the list and the nearest."""
    words = tuple(known)

    def parse(value: str) -> str:
        if value in words:
            return value
        raise UsageError(
            f"{what} cannot be {value!r}.", why=f"It is one of {', '.join(words)}.", fix=did_you_mean(value, words)
        )

    return parse
