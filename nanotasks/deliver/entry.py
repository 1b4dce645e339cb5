"""Entering what an agent wrote in the delivery ledger: each outbound row once, in the order of its rowid.

`sessions.outbound_mark` is the rowid of the last row entered, `outbound_mark_id` its id, so that a drain costs
nothing for what was delivered long ago. Every look reads that last row again: if another one stands in its place,
the file was replaced (restored, vacuumed, tampered with) and is read from its beginning; the unique key (session,
message id) keeps what is known from being entered twice. Rows that stand in `delivered` already, because NanoClaw 2
sent them, are passed over. A row that cannot be read is entered as dead, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, bindparam, update

from nanotasks import faults, logs
from nanotasks.central.base import table_of
from nanotasks.central.deliveries import Delivery
from nanotasks.central.engine import insert_missing
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver.facts import Round
from nanotasks.deliver.host_messages import is_from_host
from nanotasks.deliver.ledger import Claim
from nanotasks.domain.delivery import lane_of, shorten
from nanotasks.errors import HostileFileError
from nanotasks.ids import new_id
from nanotasks.schedule.follow import Taken
from nanotasks.session.errors import OutboundBusyError
from nanotasks.session.inbound import open_inbound
from nanotasks.session.outbound import OutboundReader, open_outbound
from nanotasks.session.outbound_rows import MAX_NAME_BYTES
from nanotasks.session.rows import BadRow, OutboundRow, TaskReport

T = TypeVar("T")

_log = logs.get("deliver")

BATCH = 200

_sessions = table_of(AgentSession)
# Only from where a look began: whoever moved it meanwhile has read the same rows.
_MOVE_MARK = (
    update(_sessions)
    .where(_sessions.c.id == bindparam("of_session"), _sessions.c.outbound_mark == bindparam("from_rowid"))
    .values(outbound_mark=bindparam("to_rowid"), outbound_mark_id=bindparam("to_id"))
)


@dataclass(frozen=True)
class Mark:
    """How far a session's outbound rows were entered: the last row's rowid and id."""

    rowid: int = 0
    row_id: str | None = None


@dataclass(frozen=True)
class Entered:
    """How many rows were entered, the lanes of those that are to be sent now, and the head of the only one."""

    count: int = 0
    lanes: frozenset[str] = frozenset()
    head: Claim | None = None


class Entry:
    """Enters a session's rows; keeps the mark from one look to the next. `unreadable` is why the last look failed."""

    def __init__(self, around: Round) -> None:
        self._round = around
        self._stored = self._mark = Mark(around.session.outbound_mark, around.session.outbound_mark_id)
        self.unreadable: str | None = None

    def enter_new(self, may_claim: Callable[[frozenset[str]], bool] = lambda _lanes: False) -> Entered:
        """Enter a batch of the rows behind the mark; nothing where the file cannot be read.

        Where `may_claim` allows it for the lanes of these rows, the head of the only one is claimed in the same
        commit, to be sent at once.
        """
        rows = self._look(self._read)
        if rows:
            return self._enter(rows, may_claim)
        if rows is not None and self._mark != self._stored:
            self._forget_vanished_rows()
        return Entered()

    def acks(self, message_ids: Collection[str]) -> Mapping[str, str] | None:
        """What the agent says of these inbound rows; None while there are outbound rows that were not entered.

        A file that cannot be read says nothing.
        """
        if self.unreadable is not None:
            return {}  # it could not be read a moment ago, and others wait
        found = self._look(lambda reader: (bool(self._read(reader)), reader.acks(message_ids)))
        if found is None:
            return {}
        unentered, acks = found
        return None if unentered else acks

    def taken(self, message_ids: Collection[str], acks: Mapping[str, str]) -> list[Taken]:
        """What the agent has acknowledged and reports of these rows of scheduled tasks."""
        if not message_ids:
            return []
        reports = self._look(lambda reader: reader.task_reports(message_ids)) or {}
        return [Taken(one, acks[one], reports.get(one, TaskReport())) for one in message_ids]

    def _look(self, question: Callable[[OutboundReader], T]) -> T | None:
        """The answer, or None when the file cannot be read now."""
        session = self._round.session
        try:
            with open_outbound(session.folder, self._round.read_limits, agent_is_dead=not session.has_agent) as reader:
                answer = question(reader)
        except (HostileFileError, OutboundBusyError) as error:
            self.unreadable = str(error)
            _log.warning("outbound_unreadable", session=session.id, reason=self.unreadable)
            return None
        self.unreadable = None
        return answer

    def _read(self, reader: OutboundReader) -> list[OutboundRow | BadRow]:
        if self._mark.rowid > 0:
            rows = reader.messages_after(self._mark.rowid - 1, BATCH + 1)
            if rows and Mark(rows[0].rowid, _id_of(rows[0])) == self._mark:
                return rows[1:] or reader.messages_after(self._mark.rowid, BATCH)
            _log.warning("outbound_replaced", session=self._round.session.id, mark=self._mark.rowid)
            self._mark = Mark()
        return reader.messages_after(0, BATCH)

    def _enter(self, rows: Sequence[OutboundRow | BadRow], may_claim: Callable[[frozenset[str]], bool]) -> Entered:
        with open_inbound(self._round.session.folder) as inbound:
            delivered = inbound.delivered([_id_of(row) for row in rows])
        values = [self._values(row) for row in rows if _id_of(row) not in delivered]
        last = Mark(rows[-1].rowid, _id_of(rows[-1]))
        with self._round.db.write_core() as connection:
            if values:
                connection.execute(insert_missing(connection, Delivery), values)
            self._move_mark(connection, last)
            now = now_ms()
            due = (one for one in values if one["state"] == "pending" and one["next_attempt_at"] <= now)
            lanes = frozenset(one["lane"] for one in due)
            head = self._round.ledger.claim_within(connection, *lanes) if len(lanes) == 1 and may_claim(lanes) else None
            faults.point("enter.before_commit")
        faults.point("enter.after_commit")
        self._stored = self._mark = last
        return Entered(len(rows), lanes, head)

    def _forget_vanished_rows(self) -> None:
        if self._mark != self._stored:
            with self._round.db.write_core() as connection:
                self._move_mark(connection, self._mark)
            self._stored = self._mark

    def _move_mark(self, connection: Connection, mark: Mark) -> None:
        connection.execute(
            _MOVE_MARK,
            {
                "of_session": self._round.session.id,
                "from_rowid": self._stored.rowid,
                "to_rowid": mark.rowid,
                "to_id": mark.row_id,
            },
        )

    def _values(self, row: OutboundRow | BadRow) -> dict[str, Any]:
        now = now_ms()
        session = self._round.session
        values: dict[str, Any] = {
            "id": new_id("dlv"),
            "session_id": session.id,
            "agent_group_id": session.agent_group_id,
            "host_id": session.host_id,
            "message_out_id": _id_of(row),
            "seq": row.rowid,
            "lane": lane_of(session.id, None, None),
            "kind": "unreadable",
            "channel_type": None,
            "platform_id": None,
            "thread_id": None,
            "in_reply_to": None,
            "content": "",
            "state": "dead",
            "next_attempt_at": None,
            "error_class": "permanent",
            "error_text": None,
            "created_at": now,
            "finished_at": now,
        }
        fault = row.reason if isinstance(row, BadRow) else _unstorable(row)
        if isinstance(row, BadRow) or fault:
            _log.warning("outbound_row_unreadable", session=session.id, rowid=row.rowid, reason=fault)
            return {**values, "error_text": shorten(f"it cannot be read: {fault}")}
        return {
            **values,
            "seq": row.rowid if row.seq is None else row.seq,
            "lane": lane_of(session.id, row.channel_type, row.platform_id),
            "kind": row.kind,
            "channel_type": row.channel_type,
            "platform_id": row.platform_id,
            "thread_id": row.thread_id,
            "in_reply_to": row.in_reply_to,
            "content": row.content,
            "state": "pending",
            "next_attempt_at": now if row.deliver_after_ms is None else row.deliver_after_ms,
            "error_class": None,
            "finished_at": None,
        }


def _id_of(row: OutboundRow | BadRow) -> str:
    """The row's id, or one made of its rowid where it has none that a database could hold, or one of the host's."""
    if not row.id or "\0" in row.id or len(row.id.encode()) > MAX_NAME_BYTES or is_from_host(row.id):
        return f"rowid-{row.rowid}"
    return row.id


def _unstorable(row: OutboundRow) -> str | None:
    """PostgreSQL stores no NUL in a text, and one such row must not hold up the others."""
    texts = (row.id, row.kind, row.content, row.channel_type, row.platform_id, row.thread_id, row.in_reply_to)
    return "it holds a NUL character" if any(text and "\0" in text for text in texts) else None
