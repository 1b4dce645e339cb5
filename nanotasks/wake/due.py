"""When a session is due next: the one number by which sweeps and alarms find it without opening files.

    lower      lock inbound.db · set `next_due_at` if that is earlier, bump `due_version` · write the row · commit
    recompute  lock inbound.db · read `due_version` and the file · unlock · set what the file says, unless the
               version has changed since

`next_due_at` is never later than the earliest due row, whatever dies in between. A row that was announced and then
not written costs one look. The lock of inbound.db is what makes it hold: without it a recompute could read the
version after an announcement and the file before its row. The version makes a recompute that was held up change
nothing. Inside the lock the central database is written in a short transaction of its own; nobody may wait for
inbound.db while in a central transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, case, or_, select, update

from nanotasks.central import Database
from nanotasks.central.base import table_of
from nanotasks.central.sessions import AgentSession
from nanotasks.session.inbound import Inbound

_sessions = table_of(AgentSession)
_due_at = _sessions.c.next_due_at

# Every message runs these once: they are built once, and run without a unit of work.
_ANNOUNCE = (
    update(_sessions)
    .where(_sessions.c.id == bindparam("of_session"))
    .values(
        next_due_at=case((or_(_due_at.is_(None), _due_at > bindparam("due_ms")), bindparam("due_ms")), else_=_due_at),
        due_version=_sessions.c.due_version + 1,
    )
)
_BEFORE = select(_due_at, _sessions.c.due_version).where(_sessions.c.id == bindparam("of_session"))
_RECOMPUTED = (
    update(_sessions)
    .where(_sessions.c.id == bindparam("of_session"), _sessions.c.due_version == bindparam("seen_version"))
    .values(next_due_at=bindparam("due_ms"))
)


@contextmanager
def announced(db: Database, inbound: Inbound, session_id: str, due_ms: int = 0) -> Iterator[None]:
    """A transaction of inbound.db for rows that are due at `due_ms` (milliseconds UTC, 0 for at once)."""
    with inbound.transaction():
        announce(db, session_id, due_ms)
        yield


def announce(db: Database, session_id: str, due_ms: int) -> None:
    """Say that a row will be due; to be called with the lock of inbound.db held, before the row is committed there."""
    with db.write_core() as connection:
        connection.execute(_ANNOUNCE, {"of_session": session_id, "due_ms": due_ms})


@dataclass(frozen=True)
class DueLook:
    """What the file says of a session's due time, and the version that was read under the file's lock."""

    session_id: str
    due_ms: int | None
    seen_version: int
    differs: bool

    def set(self, connection: Connection) -> None:
        """Make it so, unless somebody announced a row since."""
        if self.differs:
            values = {"of_session": self.session_id, "seen_version": self.seen_version, "due_ms": self.due_ms}
            connection.execute(_RECOMPUTED, values)


def look(db: Database, inbound: Inbound, session_id: str, settled: Collection[str] = ()) -> DueLook:
    """When the session is due by its file. Within a transaction of `inbound`, what that changed counts already.

    `settled` are ids of pending rows that the agent has acked, which are not due any more.
    """
    with inbound.transaction():
        with db.read_core() as connection:
            before = connection.execute(_BEFORE, {"of_session": session_id}).one_or_none()
        due_ms = inbound.next_due_ms(settled)
    if before is None:
        return DueLook(session_id, due_ms, 0, differs=False)
    return DueLook(session_id, due_ms, before.due_version, differs=before.next_due_at != due_ms)


def recompute(db: Database, inbound: Inbound, session_id: str, settled: Collection[str] = ()) -> int | None:
    """Set the session's due time to what its file says, and return that: 0 for at once, None for never."""
    looked = look(db, inbound, session_id, settled)
    if looked.differs:
        with db.write_core() as connection:
            looked.set(connection)
    return looked.due_ms
