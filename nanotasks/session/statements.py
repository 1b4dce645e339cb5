"""The SQL of session files: `schema/*.sql`, read once. A statement is asked for by the name above it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

_SCHEMA = Path(__file__).parent / "schema"
_MARK = "-- name: "


@functools.cache
def script(name: str) -> str:
    """The text of `schema/<name>.sql`."""
    return (_SCHEMA / f"{name}.sql").read_text(encoding="utf-8")


@functools.cache
def queries(name: str) -> Mapping[str, str]:
    """The statements of `schema/<name>.sql`, each under its `-- name: …` line; other comments are left out."""
    blocks = script(name).split(_MARK)[1:]
    return {title.strip(): _bare(body) for title, _, body in (block.partition("\n") for block in blocks)}


def statements(text: str) -> list[str]:
    """A script one statement at a time, for where `executescript` would commit first. No text in it holds a `;`."""
    return [part for part in (piece.strip() for piece in _bare(text).split(";")) if part]


def _bare(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()
