"""inbound.db: what the host tells an agent. Only the host writes it.

It is opened, used and closed for every operation: a runner behind a file share sees a change when the file is
closed, and a handle that stays open would keep its view of the file. Several reads and writes go through one
`transaction`, which is IMMEDIATE, so that two writers never take the same seq:

    with open_inbound(folder) as inbound, inbound.transaction():
        rows = ask_the_central_database()
        inbound.insert(rows)

Seq (promise I4): the host's are even, the runner's odd, and a new one is larger than both files' maxima when they
were read. outbound.db is the agent's, so its word is limited: a file that cannot be read counts as empty, and a
number more than a million ahead of ours is passed over. The two parities keep numbers unique either way.

A commit whose process dies is rolled back by the next `open_inbound`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import quote

from nanotasks import faults
from nanotasks.clock import iso, now_ms
from nanotasks.domain.retry import ClaimedRow, Reset, ResetAction, decide_reset
from nanotasks.errors import HostileFileError
from nanotasks.session import upgrade
from nanotasks.session.errors import OutboundBusyError, SessionFileError
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.session.rows import Delivered, Destination, DestinationType, InboundRow, Inserted, NewRow
from nanotasks.session.statements import queries

SQL = queries("inbound_queries")
BUSY_TIMEOUT_S = 5.0
# The largest step the agent's seq may make ahead of ours before it is taken for a forgery.
MAX_SEQ_LEAD = 1_000_000
# Short, because inbound.db is locked for other writers meanwhile.
_SEQ_LIMITS = ReadLimits(deadline_s=0.25, max_value_bytes=1_000_000)


@contextmanager
def open_inbound(folder: SessionFolder) -> Iterator[Inbound]:
    """The session's inbound.db, brought up to date if an older host made it.

    Raises `SessionFileError` when it is missing, locked for five seconds, damaged, or the disk is full.
    """
    path = quote(bytes(folder.inbound_db))
    try:
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.executescript(SQL["configure"])
            upgrade.bring_up_to_date(connection)
            yield Inbound(connection, folder)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise SessionFileError(
            f"The inbound.db of the session {folder.root.name} cannot be used.",
            why=f"SQLite says: {error} ({folder.inbound_db}).",
            fix="If this lasts, check that the disk has room and that the file is there and readable.",
        ) from error


class Inbound:
    """An open inbound.db. Every write is a transaction of its own, or part of the `transaction` around it."""

    def __init__(self, connection: sqlite3.Connection, folder: SessionFolder) -> None:
        self._db = connection
        self._folder = folder

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside or, on any exception, nothing. Inside another one it is part of that."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute(SQL["begin"])
        try:
            yield
            faults.point("inbound.commit")
            self._db.commit()
        except BaseException:
            self._db.rollback()
            raise

    # Messages

    def insert(self, rows: Iterable[NewRow]) -> Inserted:
        """Append rows in their order, with even seqs; a row whose id is already there is left as it is."""
        wanted: dict[str, NewRow] = {}
        for row in rows:
            wanted.setdefault(row.id, row)
        with self.transaction():
            present = {found for (found,) in self._db.execute(SQL["present"], (_json(wanted),))}
            new = [row for row in wanted.values() if row.id not in present]
            seqs = self._next_seqs(len(new)) if new else ()
            self._db.executemany(SQL["insert"], map(_stored, new, seqs))
        return Inserted({row.id: seq for row, seq in zip(new, seqs, strict=True)}, tuple(sorted(present)))

    def _next_seqs(self, count: int) -> Sequence[int]:
        ours = self.max_seq()
        highest = max(ours, self._outbound_seq(ours + MAX_SEQ_LEAD), 0)
        first = highest + 2 - highest % 2
        return range(first, first + 2 * count, 2)

    def _outbound_seq(self, at_most: int) -> int:
        try:
            with open_outbound(self._folder, _SEQ_LIMITS) as outbound:
                return outbound.max_seq(at_most)
        except (HostileFileError, OutboundBusyError):
            return 0

    def max_seq(self) -> int:
        """The highest seq of an inbound row; 0 when there is none."""
        return int(self._db.execute(SQL["max_seq"]).fetchone()[0])

    def row(self, message_id: str) -> InboundRow | None:
        """The row with an id."""
        found = self._db.execute(SQL["row_by_id"], (message_id,)).fetchone()
        return InboundRow(*found) if found else None

    def row_by_seq(self, seq: int) -> InboundRow | None:
        """The row with a seq, which is how agents name a message."""
        found = self._db.execute(SQL["row_by_seq"], (seq,)).fetchone()
        return InboundRow(*found) if found else None

    def source_session_id(self, message_id: str) -> str | None:
        """The session that another agent's message came from: where an answer to it belongs."""
        found = self._db.execute(SQL["source_session_id"], (message_id,)).fetchone()
        return found[0] if found else None

    def newest_peer_session_id(self, agent_group_id: str, until_ms: int) -> str | None:
        """The session that the newest message from another agent group came from, at a given time."""
        found = self._db.execute(SQL["newest_peer"], (agent_group_id, iso(until_ms))).fetchone()
        return found[0] if found else None

    # Due work

    def count_due(self, at_ms: int | None = None) -> int:
        """Pending rows that may wake the agent and whose time has come, by `datetime()` (NanoClaw 2's rule).

        A `process_after` that SQLite does not read as a time is never due.
        """
        now = iso(now_ms() if at_ms is None else at_ms)
        return int(self._db.execute(SQL["count_due"], {"now": now}).fetchone()[0])

    def next_due_ms(self, settled: Collection[str] = ()) -> int | None:
        """When the first pending row that may wake the agent is due: 0 for at once, None for never.

        `settled` are ids that do not count, because the agent has acked them. Whole seconds, as `count_due` counts.
        """
        found = self._db.execute(SQL["next_due"], {"settled": _json(settled)}).fetchone()[0]
        return None if found is None else int(found)

    def open_ids(self) -> list[str]:
        """The ids of pending and paused rows, in seq order: what an ack can still change."""
        return list(self.open_rows())

    def open_rows(self) -> dict[str, str]:
        """The kind of each pending or paused row by its id, in seq order."""
        return dict(self._db.execute(SQL["open_rows"]).fetchall())

    def complete(self, message_ids: Collection[str]) -> list[str]:
        """Mark rows completed and return the ids that were not; a failed row stays failed.

        This is where acks end up, `completed` and `failed` alike (NanoClaw 2's rule).
        """
        if not message_ids:
            return []
        with self.transaction():
            return [found for (found,) in self._db.execute(SQL["complete"], (_json(message_ids),)).fetchall()]

    def revise(
        self, message_id: str, *, content: str, process_after_ms: int, recurrence: str | None, paused: bool
    ) -> None:
        """Make an open row say what its scheduled task says now; one that says so already is not written."""
        values = {
            "id": message_id,
            "content": content,
            "process_after": iso(process_after_ms),
            "recurrence": recurrence,
            "status": "paused" if paused else "pending",
        }
        with self.transaction():
            self._db.execute(SQL["revise"], values)

    def fail(self, message_ids: Collection[str]) -> None:
        """Mark rows failed that are pending or paused."""
        if message_ids:
            with self.transaction():
                self._db.executemany(SQL["fail"], [{"id": message_id} for message_id in message_ids])

    def reset_claimed(
        self, message_ids: Collection[str], at_ms: int, *, max_tries: int = 5, backoff_ms: int = 5000
    ) -> dict[str, Reset]:
        """Put off, or fail, the rows that a dead agent held; what became of each row that there is.

        Repeating it changes nothing: a row that is put off is left alone.
        """
        resets: dict[str, Reset] = {}
        if not message_ids:
            return resets
        with self.transaction():
            for found, status, tries, after_ms in self._db.execute(SQL["claimed"], (_json(message_ids),)).fetchall():
                facts = ClaimedRow(status, tries, after_ms)
                resets[found] = decide_reset(facts, at_ms, max_tries=max_tries, backoff_ms=backoff_ms)
                self._apply(found, resets[found], at_ms)
        return resets

    def _apply(self, message_id: str, reset: Reset, at_ms: int) -> None:
        if reset.action is ResetAction.FAIL:
            self._db.execute(SQL["fail"], {"id": message_id})
        elif reset.action is ResetAction.RETRY:
            after = iso(at_ms + reset.delay_ms)
            self._db.execute(SQL["retry"], {"id": message_id, "tries": reset.tries, "process_after": after})

    # What the agent is told about its answers and its surroundings

    def record_deliveries(self, deliveries: Iterable[Delivered]) -> None:
        """Record outcomes in one commit; the first outcome of a message stays, but a failure gives way to a success."""
        values = [(one.message_out_id, one.platform_message_id, one.status, iso(one.at_ms)) for one in deliveries]
        with self.transaction():
            self._db.executemany(SQL["record_delivery"], values)

    def delivered(self, message_out_ids: Collection[str]) -> Mapping[str, str]:
        """The recorded outcome (`delivered` or `failed`) of each of these messages that has one."""
        return dict(self._db.execute(SQL["delivered"], (_json(message_out_ids),)).fetchall())

    def replace_destinations(self, destinations: Iterable[Destination]) -> None:
        """Replace all the names that the agent may address."""
        values = [
            (one.name, one.display_name, one.type, one.channel_type, one.platform_id, one.agent_group_id)
            for one in destinations
        ]
        with self.transaction():
            self._db.execute(SQL["clear_destinations"])
            self._db.executemany(SQL["insert_destination"], values)

    def destinations(self) -> list[Destination]:
        """The names that the agent may address, in alphabetical order."""
        return [
            Destination(name, DestinationType(kind), display_name, channel_type, platform_id, agent_group_id)
            for name, display_name, kind, channel_type, platform_id, agent_group_id in self._db.execute(
                SQL["destinations"]
            )
        ]

    def set_session_routing(self, channel_type: str | None, platform_id: str | None, thread_id: str | None) -> None:
        """Set where answers go that name no destination; all None for a session without a chat."""
        with self.transaction():
            self._db.execute(SQL["set_session_routing"], (channel_type, platform_id, thread_id))


def _json(ids: Iterable[str]) -> str:
    return json.dumps(list(ids), ensure_ascii=False)


def _stored(row: NewRow, seq: int) -> tuple[object, ...]:
    process_after = None if row.process_after_ms is None else iso(row.process_after_ms)
    return (
        row.id,
        seq,
        row.kind,
        iso(row.timestamp_ms),
        process_after,
        row.recurrence,
        row.series_id or row.id,
        row.trigger,
        row.platform_id,
        row.channel_type,
        row.thread_id,
        row.content,
        row.source_session_id,
        int(row.on_wake),
    )
