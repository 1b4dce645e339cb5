"""Reading inbound.db. A reader is one fresh read-only connection, closed after a moment.

Fresh, because a connection that stays open across a virtual machine's file share keeps seeing its cached pages;
read-only, because the host owns the file. outbound.db is attached (read-only too), so that acknowledged rows can be
left out before a limit is applied. Files of older hosts lack some columns and tables; they read as the defaults those
were added with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from agent_runner.batching import Due, apart, in_order, room_for_context, stands_alone
from agent_runner.rows import NOWHERE, Destination, InboundRow, Route
from agent_runner.sql import SQL, connect, uri


class Newest(NamedTuple):
    """Who wrote last in a chat; `is_open` while the host does not know of an end of it."""

    id: str
    thread_id: str | None
    is_open: bool


class Inbound:
    """The file, and what does not change in it while this process lives."""

    def __init__(self, path: str, outbound_path: str) -> None:
        self._path = path
        self._outbound_path = outbound_path
        self._columns: frozenset[str] | None = None
        self._wake_ids: str | None = None

    @contextmanager
    def open(self) -> Iterator[Reader]:
        """A reader. Raises `sqlite3.OperationalError` when the file is missing, locked for long or half-written."""
        db = connect(self._path, "ro")
        try:
            db.execute("PRAGMA mmap_size = 0")
            yield Reader(db)
        finally:
            db.close()

    def due(self, reader: Reader, limit: int) -> Due:
        """The rows of the next prompt; rows with `on_wake` only if the first call of this process saw them."""
        if self._columns is None:
            self._columns = reader.columns()
        if self._wake_ids is None:
            self._wake_ids = json.dumps(reader.wake_ids(self._columns))
        reader.look_at_acks(self._outbound_path)
        return reader.due(limit, self._wake_ids, self._columns)


class Reader:
    """One connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def columns(self) -> frozenset[str]:
        """The columns of `messages_in`. Raises `sqlite3.OperationalError` while the host has not made the table."""
        columns = frozenset(row[1] for row in self._db.execute("PRAGMA table_info(messages_in)"))
        if not columns:
            raise sqlite3.OperationalError("no such table: messages_in")
        return columns

    def wake_ids(self, columns: frozenset[str]) -> list[str]:
        return [row[0] for row in self._db.execute(SQL["wake_ids"])] if "on_wake" in columns else []

    def look_at_acks(self, outbound_path: str) -> None:
        """Join outbound.db, and read both files as they are at one moment each until this reader is closed."""
        self._db.execute("ATTACH ? AS acks", (uri(outbound_path, "ro"),))
        self._db.execute("BEGIN")

    def due(self, limit: int, wake_ids: str, columns: frozenset[str]) -> Due:
        """See `batching`; `wake_ids` is a JSON array."""

        def statement(name: str) -> str:
            text = SQL[name] if "on_wake" in columns else SQL[name].replace("m.on_wake", "0")
            return text if "trigger" in columns else text.replace('m."trigger"', "1").replace('o."trigger"', "1")

        bound: dict[str, Any] = {"limit": limit, "wake_ids": wake_ids}
        triggers = apart(self._rows(statement("due_triggers"), bound))
        room = 0 if any(map(stands_alone, triggers)) else room_for_context(triggers, limit)
        if not room:
            return Due(tuple(triggers))
        context = self._rows(statement("due_context"), {**bound, "limit": room})
        rows = in_order(triggers, context)
        if len(context) < room:
            return Due(rows)
        bound["seq"] = max((row.seq or 0 for row in rows), default=0)
        bound["taken"] = json.dumps([row.id for row in rows])
        return Due(rows, tuple(row[0] for row in self._db.execute(statement("overtaken_context"), bound)))

    def next_due(self) -> float | None:
        """When the next of the later rows becomes due, in seconds since 1970."""
        found = self._db.execute(SQL["next_due"]).fetchone()[0]
        return None if found is None else float(found)

    def destinations(self) -> tuple[Destination, ...]:
        """Where the agent may write, by name."""
        try:
            return tuple(Destination(*row) for row in self._db.execute(SQL["destinations"]))
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return ()
            raise

    def session_routing(self) -> Route:
        """The session's own conversation; all None where it has none."""
        try:
            row = self._db.execute(SQL["session_routing"]).fetchone()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return NOWHERE
            raise
        return Route(*row) if row else NOWHERE

    def newest_from(self, route: Route) -> Newest | None:
        """The newest row, of any kind and status, that came from this chat."""
        row = self._db.execute(SQL["newest_inbound_from"], (route.channel_type, route.platform_id)).fetchone()
        return Newest(row[0], row[1], bool(row[2])) if row else None

    def tasks(self, statuses: list[str]) -> list[tuple[str, str, str | None, str | None, str]]:
        """Series, status, time, recurrence and content of the newest row of each scheduled task with such a status."""
        found = self._db.execute(SQL["tasks"], (json.dumps(statuses),))
        return [
            (_text(row[0]) or "", _text(row[1]) or "", _text(row[2]), _text(row[3]), _text(row[4]) or "")
            for row in found
        ]

    def answer(self, row_id: str) -> str | None:
        """The content of the host's answer in this row, once it is there."""
        row = self._db.execute(SQL["answer"], (row_id,)).fetchone()
        return _text(row[0]) if row else None

    def max_seq(self) -> int:
        return int(self._db.execute(SQL["inbound_max_seq"]).fetchone()[0])

    def _rows(self, statement: str, bound: dict[str, Any]) -> list[InboundRow]:
        return [_row(values) for values in self._db.execute(statement, bound)]


def _row(values: tuple[Any, ...]) -> InboundRow:
    row_id, seq, kind, timestamp, trigger, channel_type, platform_id, thread_id, content, tries = values
    route = Route(_text(channel_type), _text(platform_id), _text(thread_id))
    return InboundRow(
        row_id,
        seq,
        _text(kind) or "",
        _text(timestamp) or "",
        bool(trigger),
        route,
        _text(content) or "",
        _count(tries),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _text(value: Any) -> str | None:
    """SQLite keeps any type in any column; a value that is no text is read as one."""
    if value is None or isinstance(value, str):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
