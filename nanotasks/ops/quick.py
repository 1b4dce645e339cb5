"""Reading the central database for a list, without the import that takes longer than the query.

One text serves both databases: on SQLite it runs on the file directly, read-only; on PostgreSQL, and wherever the
quick way has anything to object (no file, another schema, a locked database), it runs through SQLAlchemy, which says
what is wrong.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from nanotasks.assets import asset
from nanotasks.ops.cli.central import open_central, sqlite_file
from nanotasks.settings import settings

Rows = list[dict[str, Any]]


def rows(statement: str, values: Mapping[str, Any]) -> Rows:
    """What a SELECT with `:name` parameters finds, as dictionaries by column."""
    found = _from_file(statement, values)
    return _from_database(statement, values) if found is None else found


def newest_schema() -> str:
    """The revision that this release works with."""
    return max(path.name for path in (asset("migrations") / "versions").glob("[0-9]*.py")).split("_")[0]


def _from_file(statement: str, values: Mapping[str, Any]) -> Rows | None:
    path = sqlite_file(settings())
    if path is None or not path.is_file():
        return None
    # A command that lists ends when it has listed; looking for cycles in ten thousand rows would double its time.
    gc.disable()
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        try:
            if connection.execute("SELECT version_num FROM alembic_version").fetchall() != [(newest_schema(),)]:
                return None
            cursor = connection.execute(statement, values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor]  # noqa: B905 — as long as each other
        finally:
            connection.close()
    except sqlite3.Error:
        return None


def _from_database(statement: str, values: Mapping[str, Any]) -> Rows:
    from sqlalchemy import text

    with open_central(settings()).read() as session:
        return [dict(row) for row in session.execute(text(statement), dict(values)).mappings()]
