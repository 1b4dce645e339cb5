"""What must hold after every step, and what when all has come to rest: read by plain SQL, from outside.

`Promises.broken` remembers what it saw the last time, so that it notices what goes backwards.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from tests.faults.machine.house import House

Rows = list[Any]

_ENDS = {
    "inbound_events": ("routed", "dropped", "dead"),
    "inbound_routes": ("context", "completed", "answered", "dead"),
    "deliveries": ("delivered", "dead", "held"),
}
# What an operator names in the audit log: the event, or the delivery.
_STATES = """
SELECT 'inbound_events' AS kind, id AS id, id AS target, state AS state, 0 AS tries FROM inbound_events
UNION ALL SELECT 'inbound_routes', CAST(id AS TEXT), event_id, state, 0 FROM inbound_routes
UNION ALL SELECT 'deliveries', id, id, state, attempts FROM deliveries
"""
_COUNTS = {
    "I2 a lane is sending two rows": (
        "SELECT lane AS what FROM deliveries WHERE state = 'sending' GROUP BY lane HAVING count(*) > 1"
    ),
    "I2 an outbound row stands in the ledger twice": (
        "SELECT session_id || ' ' || message_out_id AS what FROM deliveries"
        " GROUP BY session_id, message_out_id HAVING count(*) > 1"
    ),
    "I2 attempts are counted and not written, or written and not counted": (
        "SELECT d.id AS what FROM deliveries d LEFT JOIN delivery_attempts a ON a.delivery_id = d.id"
        " GROUP BY d.id, d.attempts HAVING d.attempts <> count(a.id)"
    ),
    "I2 a send is going on and its attempt is closed, or the other way round": (
        "SELECT d.id AS what FROM deliveries d LEFT JOIN delivery_attempts a ON a.delivery_id = d.id"
        " AND a.finished_at IS NULL GROUP BY d.id, d.state"
        " HAVING count(a.id) <> CASE WHEN d.state = 'sending' THEN 1 ELSE 0 END"
    ),
    "I5 a session has two live agents": (
        "SELECT session_id AS what FROM instances WHERE ended_at IS NULL GROUP BY session_id HAVING count(*) > 1"
    ),
    "I1 a message is dead and nobody was told": (
        "SELECT r.inbound_id AS what FROM inbound_routes r LEFT JOIN deliveries d ON d.session_id = r.session_id"
        " AND d.message_out_id = 'host-unanswered-' || r.inbound_id WHERE r.state = 'dead' AND d.id IS NULL"
    ),
}
_LEFT_OVER = {
    "I1 a message was not routed": "SELECT id AS what FROM inbound_events WHERE state = 'pending'",
    "I1 a message was routed to nobody": (
        "SELECT e.id AS what FROM inbound_events e LEFT JOIN inbound_routes r ON r.event_id = e.id"
        " WHERE e.state = 'routed' AND r.id IS NULL"
    ),
    "I1 a message was dropped without a reason": (
        "SELECT e.id AS what FROM inbound_events e LEFT JOIN drops d ON d.event_id = e.id"
        " WHERE e.state = 'dropped' AND d.id IS NULL"
    ),
    "I1 a message has not ended": (
        "SELECT inbound_id || ' ' || state AS what FROM inbound_routes WHERE state IN ('pending', 'appended')"
    ),
    "I2 an outbound row is neither delivered nor dead": (
        "SELECT id || ' ' || state AS what FROM deliveries WHERE state NOT IN ('delivered', 'dead')"
    ),
    "I2 an outcome is not told": "SELECT id AS what FROM deliveries WHERE projected_at IS NULL",
    "I9 a lease is held": "SELECT name AS what FROM leases WHERE owner IS NOT NULL",
    "I9 a session is due": (
        "SELECT id || ' ' || next_due_at || ' v' || due_version || ' ' || container_status AS what FROM sessions"
        " WHERE next_due_at IS NOT NULL"
    ),
}


class Promises:
    """Reads one house."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._states: dict[tuple[str, str], tuple[str, int]] = {}
        self._audited = 0
        self._leases: dict[str, tuple[str | None, int]] = {}
        self._seqs: dict[Path, tuple[int, int]] = {}

    def broken(self, accepted: dict[str, str]) -> list[str]:
        """What is broken now; `accepted` are the ids of accepted events, by their platform's ids."""
        with self._house.observer.read_core() as db:
            found = [
                *_listed(db, _COUNTS),
                *self._accepted(db, accepted),
                *self._ended(db),
                *self._fenced(db),
                *self._arrived(db),
                *self._in_order(db),
                *self._recorded(db),
            ]
            sessions = db.execute(
                text("SELECT s.id, s.agent_group_id FROM sessions s ORDER BY s.created_at, s.id")
            ).all()
        for row in sessions:
            for folder in self._folders(row):
                found += self._numbered(folder)
        return found + self._house.platform.disorder

    def left_over(self) -> list[str]:
        """What has not come to an end yet."""
        with self._house.observer.read_core() as db:
            return [*_listed(db, _LEFT_OVER), *self._unentered(db)]

    def damaged(self) -> Iterator[str]:
        """I10, where the databases are SQLite's."""
        files = [*self._data("*/sessions/*/*/host/inbound.db"), *self._data("*/sessions/*/*/workspace/outbound.db")]
        for path in [*files, *self._data("central.db")]:
            with closing(sqlite3.connect(path)) as db:
                for pragma in ("integrity_check", "foreign_key_check"):
                    wrong = [row for row in db.execute(f"PRAGMA {pragma}") if row != ("ok",)]
                    if wrong:
                        yield f"I10 {path.name}: {pragma} says {wrong[:3]}"

    def _data(self, pattern: str) -> list[Path]:
        root = next(iter(self._house.settings.values())).data_dir.parent
        return sorted(root.glob(pattern))

    def _folders(self, row: Any) -> list[Path]:
        return self._data(f"*/sessions/{row.agent_group_id}/{row.id}")

    def _accepted(self, db: Connection, accepted: dict[str, str]) -> Iterator[str]:
        rows = db.execute(text("SELECT id, platform_message_id FROM inbound_events")).all()
        for message_id, event_id in accepted.items():
            found = [row.id for row in rows if row.platform_message_id == message_id]
            if found != [event_id]:
                yield f"I1 {message_id} was accepted as {event_id} and stands there as {found}"

    def _ended(self, db: Connection) -> Iterator[str]:
        """I8: an end is left, or tried once more, only by an operator who is on record."""
        rows = db.execute(text("SELECT id, target FROM audit_log WHERE id > :seen"), {"seen": self._audited}).all()
        self._audited = max([self._audited, *(row.id for row in rows)])
        audited = {row.target for row in rows}
        states = db.execute(text(_STATES)).all()
        for row in states:
            before = self._states.get((row.kind, row.id))
            now = (row.state, row.tries)
            if before and before != now and before[0] in _ENDS[row.kind] and row.target not in audited:
                yield f"I8 {row.kind} {row.id} was {before} and is {now}, and no operator did it"
        gone = self._states.keys() - {(row.kind, row.id) for row in states}
        if gone:
            yield f"I8 rows are gone: {sorted(gone)}"
        self._states = {(row.kind, row.id): (row.state, row.tries) for row in states}
        out_of_the_way = {row.id for row in states if row.state in {"parked", "held", "dead"}}
        self._house.platform.excused |= out_of_the_way

    def _fenced(self, db: Connection) -> Iterator[str]:
        """Epochs never go back, and every new owner has a new one."""
        leases = {row.name: (row.owner, row.epoch) for row in db.execute(text("SELECT name, owner, epoch FROM leases"))}
        for name, (owner, epoch) in self._leases.items():
            owner_now, epoch_now = leases.get(name, (None, -1))
            if epoch_now < epoch:
                yield f"the epoch of {name} went from {epoch} to {epoch_now}"
            if owner_now not in (None, owner) and epoch_now <= epoch:
                yield f"{name} went from {owner} to {owner_now} in epoch {epoch}"
        self._leases = leases

    def _arrived(self, db: Connection) -> Iterator[str]:
        """I2: what is called delivered arrived; a message arrives again only after a send of unknown outcome."""
        unknown = dict(
            tuple(row)
            for row in db.execute(
                text(
                    "SELECT delivery_id, count(*) FROM delivery_attempts WHERE outcome = 'unknown_outcome'"
                    " GROUP BY delivery_id"
                )
            )
        )
        arrived = self._house.platform.arrived
        for delivery_id, times in arrived.items():
            if times > 1 + unknown.get(delivery_id, 0):
                yield f"I2 {delivery_id} arrived {times} times, and {unknown.get(delivery_id, 0)} sends are uncertain"
        for row in db.execute(text("SELECT id FROM deliveries WHERE state = 'delivered'")):
            if not arrived.get(row.id):
                yield f"I2 {row.id} is called delivered and never arrived"

    def _in_order(self, db: Connection) -> Iterator[str]:
        """I3: within a session and a chat routes are made in accept order; what an operator retried is out of it."""
        rows = db.execute(
            text(
                "SELECT r.session_id, e.platform_id, e.accept_order, r.inbound_id FROM inbound_routes r"
                " JOIN inbound_events e ON e.id = r.event_id"
                " WHERE NOT EXISTS (SELECT 1 FROM audit_log a WHERE a.target = e.id) ORDER BY r.id"
            )
        )
        last: dict[tuple[str, str], int] = {}
        for row in rows:
            key = (row.session_id, row.platform_id)
            if row.accept_order <= last.get(key, 0):
                yield f"I3 {row.inbound_id} was routed behind a later message of its chat"
            last[key] = row.accept_order

    def _recorded(self, db: Connection) -> Iterator[str]:
        """I5: an agent that runs is the one on record, as long as one is on record as running."""
        rows = db.execute(
            text("SELECT id, session_id, host_id FROM instances WHERE ended_at IS NULL AND runtime_id IS NOT NULL")
        )
        for row in rows:
            running = self._house.daemons[row.host_id].find(row.session_id)
            if running is not None and running.instance_id != row.id:
                yield f"I5 {row.session_id} runs as {running.instance_id} and is recorded as {row.id}"

    def _numbered(self, folder: Path) -> Iterator[str]:
        """I4: even and odd, each new number greater than all that stood in both files before."""
        ours = _seqs(folder / "host" / "inbound.db", "messages_in")
        theirs = _seqs(folder / "workspace" / "outbound.db", "messages_out")
        if any(seq % 2 for seq in ours) or any(seq % 2 == 0 for seq in theirs):
            yield f"I4 {folder.name} has a seq of the other side: {ours}, {theirs}"
        if ours != sorted(set(ours)) or theirs != sorted(set(theirs)):
            yield f"I4 {folder.name} counts backwards: {ours}, {theirs}"
        count, highest = self._seqs.get(folder, (0, 0))
        if any(seq <= highest for seq in ours[count:]):
            yield f"I4 {folder.name}: {ours[count:]} came after {highest}"
        self._seqs[folder] = (len(ours), max([0, *ours, *theirs]))

    def _unentered(self, db: Connection) -> Iterator[str]:
        """Outbound rows that are not in the ledger, or whose agent was not told what became of them."""
        rows = db.execute(text("SELECT session_id, message_out_id, state FROM deliveries")).all()
        ledger = {(row.session_id, row.message_out_id): row.state for row in rows}
        for path in self._data("*/sessions/*/*/workspace/outbound.db"):
            session_id = path.parent.parent.name
            with closing(sqlite3.connect(path)) as outbound:
                said = [row[0] for row in outbound.execute("SELECT id FROM messages_out")]
            with closing(sqlite3.connect(path.parent.parent / "host" / "inbound.db")) as inbound:
                told = dict(inbound.execute("SELECT message_out_id, status FROM delivered").fetchall())
            for one in said:
                state = ledger.get((session_id, one))
                if told.get(one) != {"delivered": "delivered", "dead": "failed"}.get(state or ""):
                    yield f"I2 {one} of {session_id} is {state}, and its agent was told {told.get(one)}"


def _listed(db: Connection, questions: dict[str, str]) -> Iterator[str]:
    for what, query in questions.items():
        for row in db.execute(text(query)):
            yield f"{what}: {row.what}"


def _seqs(path: Path, table: str) -> list[int]:
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=10)) as db:
        return [row[0] for row in db.execute(f"SELECT seq FROM {table} ORDER BY rowid")]  # noqa: S608
