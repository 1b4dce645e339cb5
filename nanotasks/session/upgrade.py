"""Bringing an inbound.db of an older host up to the present schema, when it is opened.

NanoClaw 2 keeps no version in its session files, so what is missing is found by looking. `user_version` then spares
every later open the look. Repeating an upgrade changes nothing, and two openers may meet: the look is repeated
under the write lock.
"""

from __future__ import annotations

import sqlite3

from nanotasks.session.statements import queries, script, statements

VERSION = 1
_SQL = queries("inbound_queries")


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Add the tables, columns and indexes that the file lacks. Raises `sqlite3.Error`.

    A file without messages is not one to be upgraded: it lost them, and to go on with an empty one would hide that.
    """
    if _version(connection) >= VERSION:
        return
    connection.execute(_SQL["begin"])
    try:
        if _version(connection) < VERSION:
            _add_what_is_missing(connection)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute(_SQL["schema_version"]).fetchone()[0])


def _add_what_is_missing(connection: sqlite3.Connection) -> None:
    present = {name for (name,) in connection.execute(_SQL["columns"])}
    tables = {name.partition(".")[0] for name in present}
    if "messages_in" not in tables:
        raise sqlite3.DatabaseError("no such table: messages_in")
    for column, addition in queries("inbound_upgrades").items():
        if column not in present and column.partition(".")[0] in tables:
            for statement in statements(addition):
                connection.execute(statement)
    for statement in statements(script("inbound")):
        connection.execute(statement)
