"""The statements of `queries.sql` by name, and how a database file is opened."""

from __future__ import annotations

import os
import sqlite3

BUSY_TIMEOUT_S = 5.0
_HERE = os.path.dirname(os.path.abspath(__file__))


def _load() -> dict[str, str]:
    with open(os.path.join(_HERE, "queries.sql"), encoding="utf-8") as file:
        blocks = file.read().split("-- name: ")[1:]
    return {name: body.strip() for name, _, body in (block.partition("\n") for block in blocks)}


SQL = _load()


def schema() -> str:
    with open(os.path.join(_HERE, "schema.sql"), encoding="utf-8") as file:
        return file.read()


def uri(path: str, mode: str) -> str:
    """`path` as an SQLite URI; `mode` is `ro`, `rw` or `rwc`."""
    quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    return f"file:{quoted}?mode={mode}"


def connect(path: str, mode: str) -> sqlite3.Connection:
    """A connection with manual transactions whose busy timeout is set before any statement runs."""
    db = sqlite3.connect(uri(path, mode), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    # A text that is not UTF-8 must not make its whole table unreadable.
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return db
