"""outbound.db: what an agent says. The host only reads it, and believes none of it.

`capture.py` opens the file without falling for links, pipes, other names or forged journals. Here the content is
distrusted: the agent can store any bytes. What SQLite may do while it reads is fenced in:

- the tables are ordinary tables without computed columns, and a view, trigger, function or virtual table is denied
  when a statement is prepared, so nothing that the agent wrote is ever evaluated;
- one transaction from the check to the last read keeps the schema that was checked;
- a deadline ends any statement, and limits bound values, columns and expressions.

A file that breaks these rules is a `HostileFileError`. A row whose values have the wrong type or size is a `BadRow`
and holds up no other.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from nanotasks.domain.stuck import Claim
from nanotasks.errors import HostileFileError
from nanotasks.session.capture import captured
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound_rows import read_report, read_row
from nanotasks.session.rows import BadRow, ContainerState, OutboundRow, TaskReport
from nanotasks.session.statements import queries
from nanotasks.settings import Settings

SQL = queries("outbound_queries")
TABLES = ("messages_out", "processing_ack", "container_state", "task_reports")
ACK_STATUSES = ("processing", "completed", "failed")
MAX_CLAIMS = 1000
# Text of one batch of rows in memory; a longer batch ends early.
MAX_BATCH_CHARACTERS = 8_000_000
_OPCODES_BETWEEN_LOOKS = 1000
_FUNCTIONS = frozenset({"max", "coalesce", "typeof", "strftime", "substr"})
_READABLE = frozenset({*TABLES, "sqlite_master"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 2,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 10_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 100,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 8,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


@dataclass(frozen=True)
class ReadLimits:
    """How long one opening and all that is read through it may take, and how large one value may be.

    `lock_wait_s` is the part of it for which a lock is waited for: an honest runner's commit takes milliseconds, and
    its end is an event of its own.
    """

    deadline_s: float = 2.0
    max_value_bytes: int = 1024 * 1024
    lock_wait_s: float = 0.1

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.outbound_read_timeout_s, settings.outbound_max_row_kb * 1024)


@contextmanager
def open_outbound(
    folder: SessionFolder, limits: ReadLimits | None = None, *, agent_is_dead: bool = False
) -> Iterator[OutboundReader]:
    """The session's outbound.db as it is now. While it is open no runner can commit: read, close, then work.

    `agent_is_dead` says that no runner lives; then half a commit that one left is rolled back on a copy. Raises
    `HostileFileError`, `OutboundBusyError` (try again), and its kind `HotJournalError` (the next runner mends it).
    """
    limits = limits or ReadLimits()
    deadline = time.monotonic() + limits.deadline_s
    try:
        patience = min(deadline, time.monotonic() + limits.lock_wait_s)
        with captured(folder, patience, deadline, agent_is_dead=agent_is_dead) as connection:
            _fence_in(connection, limits, deadline)
            yield OutboundReader(connection)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # A UnicodeDecodeError is an error whose message quotes bytes of the file.
        why = f"SQLite says: {error}."
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            why = f"Reading it took longer than {limits.deadline_s:g} s."
        raise HostileFileError(f"The outbound.db of the session {folder.root.name} cannot be read.", why=why) from error


def _fence_in(connection: sqlite3.Connection, limits: ReadLimits, deadline: float) -> None:
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _OPCODES_BETWEEN_LOOKS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.max_value_bytes)
    for category, value in _LIMITS.items():
        connection.setlimit(category, value)
    connection.executescript(SQL["configure"])
    connection.execute(SQL["begin"])
    connection.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, second: str | None, schema: str | None, inside: str | None) -> int:
    """SQLite's question before each part of a statement; `inside` is the view or trigger that it stands in."""
    allowed = inside is None and (
        action == sqlite3.SQLITE_SELECT
        or (action == sqlite3.SQLITE_READ and first in _READABLE)
        or (action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS)
        or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


class OutboundReader:
    """An open outbound.db. Methods raise `HostileFileError` for a table that is missing or not an ordinary one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._tables: frozenset[str] | None = None
        self._checked: set[str] = set()

    def messages_after(self, rowid_mark: int, limit: int) -> list[OutboundRow | BadRow]:
        """At most `limit` rows behind the mark in the order of their rowids; fewer when they are large.

        An empty list means that there are no more. Continue with the last row's rowid as the mark.
        """
        self._require("messages_out")
        found: list[OutboundRow | BadRow] = []
        mark, room = rowid_mark, MAX_BATCH_CHARACTERS
        while len(found) < limit and room > 0:
            try:
                for values in self._db.execute(SQL["messages_after"], (mark, limit - len(found))):
                    mark = _behind(mark, values[0])
                    found.append(read_row(values))
                    room -= sum(len(value) for value in values if isinstance(value, str | bytes))
                    if room <= 0:
                        break
                else:
                    break
            except sqlite3.Error as error:
                if not _is_about_a_value(error):
                    raise
                found.append(self._row_after(mark))
                mark = _behind(mark, found[-1].rowid)
        return found

    def _row_after(self, mark: int) -> OutboundRow | BadRow:
        """The next row alone: a failed batch does not say which row it failed at."""
        try:
            values = self._db.execute(SQL["messages_after"], (mark, 1)).fetchone()
        except sqlite3.Error as error:
            if not _is_about_a_value(error):
                raise
            found = self._db.execute(SQL["next_rowid"], (mark,)).fetchone()
            if found is not None:
                return BadRow(found[0], self._id_at(found[0]), f"SQLite says: {error}.")
            values = None
        if values is None:
            raise HostileFileError("outbound.db changed while it was read.", why="Its writer does not heed the locks.")
        return read_row(values)

    def _id_at(self, rowid: int) -> str | None:
        try:
            found = self._db.execute(SQL["id_at"], (rowid,)).fetchone()
        except sqlite3.Error:
            return None
        return found[0] if found and isinstance(found[0], str) else None

    def max_rowid(self) -> int:
        """The rowid of the newest row; 0 when there is none."""
        self._require("messages_out")
        return int(self._db.execute(SQL["max_rowid"]).fetchone()[0])

    def max_seq(self, at_most: int) -> int:
        """The highest integer seq that is not above `at_most`; 0 when there is none."""
        self._require("messages_out")
        found = self._db.execute(SQL["max_seq"], (at_most,)).fetchone()
        # In a damaged index the search can end anywhere.
        return int(found[0]) if found and found[0] <= at_most else 0

    def acks(self, message_ids: Collection[str]) -> dict[str, str]:
        """What the agent says of these messages: `processing`, `completed` or `failed`, for those it has acked."""
        self._require("processing_ack")
        found = {one: self._db.execute(SQL["ack"], (one,)).fetchone() for one in message_ids}
        return {one: row[0] for one, row in found.items() if row and row[0] in ACK_STATUSES}

    def claims(self) -> list[Claim]:
        """What the agent says it is working on, oldest first, at most a thousand."""
        self._require("processing_ack")
        rows = self._db.execute(SQL["claims"], (MAX_CLAIMS,))
        return [
            Claim(one, changed if isinstance(changed, str) else "") for one, changed in rows if isinstance(one, str)
        ]

    def container_state(self) -> ContainerState | None:
        """Which tool the agent says it is running; None when it says nothing, or its file has no such table."""
        if "container_state" not in self._ordinary_tables():
            return None
        self._require("container_state")
        row = self._db.execute(SQL["container_state"]).fetchone()
        if row is None:
            return None
        tool, timeout_ms, started_at, updated_at = row
        return ContainerState(_if(str, tool), _if(int, timeout_ms), _if(str, started_at), _if(str, updated_at))

    def task_reports(self, message_ids: Collection[str]) -> dict[str, TaskReport]:
        """What the agent says of runs of scheduled tasks, by the row's id; nothing where its file has no such table."""
        if "task_reports" not in self._ordinary_tables():
            return {}
        self._require("task_reports")
        found = {one: self._db.execute(SQL["task_report"], (one,)).fetchone() for one in message_ids}
        return {one: read_report(row) for one, row in found.items() if row}

    def _require(self, table: str) -> None:
        if table in self._checked:
            return
        if table not in self._ordinary_tables():
            raise HostileFileError(f"outbound.db has no table {table}.", why="It is missing, or not an ordinary table.")
        for _, column, _, _, _, _, hidden in self._db.execute(SQL[f"columns.{table}"]):
            if hidden or column.lower() in {"rowid", "oid", "_rowid_"}:
                raise HostileFileError(f"The table {table} of outbound.db has a forbidden column {column!r}.")
        self._checked.add(table)

    def _ordinary_tables(self) -> frozenset[str]:
        if self._tables is None:
            self._tables = frozenset(name for (name,) in self._db.execute(SQL["tables"]))
        return self._tables


def _behind(mark: int, rowid: int) -> int:
    """The new mark. A damaged table can go in circles, and the reader with it."""
    if rowid <= mark:
        raise HostileFileError("The rows of outbound.db are out of order.", why="The file is damaged.")
    return rowid


def _is_about_a_value(error: sqlite3.Error) -> bool:
    """Whether an error is one row's own: a value too long, or a text that is not UTF-8 (which has no code)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_TOOBIG) == sqlite3.SQLITE_TOOBIG


def _if(kind: type, value: Any) -> Any:
    return value if type(value) is kind else None
