"""Appending: from the routes of one session into its inbound.db, on the host that has the files.

    lock      inbound.db's own write lock: two appenders of a session go one after the other
    read      the session's pending routes, in route order, from the central database
    files     attachments, from media_blobs to the inbox
    insert    rows by id; one that is there already is left as it is; commit
    mark      the routes `appended` or `context`, and the session due, in one central commit

What each crash does: before the commit of inbound.db nothing happened but files that are written again; after it,
and before the marks, the routes are read again and their rows found. The session is due from the marks on and not
from the rows: until then its pending routes are what the sweep finds it by. A session whose files cannot be used
keeps its routes pending, and the reason is recorded on it; other sessions never notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, case, exists, select, text, update

from nanotasks import faults, logs
from nanotasks.central.base import table_of
from nanotasks.central.engine import Database
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver.kept import tell_waiting
from nanotasks.domain.delivery import shorten
from nanotasks.domain.timestamps import read_ms
from nanotasks.errors import HostileFileError, NanotasksError, NotFoundError
from nanotasks.intake.closed import end_unfinished
from nanotasks.intake.media import delete_arrived, read_blobs
from nanotasks.session.attachments import BLOB, extract_attachments
from nanotasks.session.errors import SessionFileError
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import NewRow
from nanotasks.settings import Settings

_log = logs.get("intake")

KEPT = (
    "Your message is kept, but it cannot be passed on to the assistant at the moment. It will be tried again; if this "
    "lasts, the operator has to look into it."
)

BATCH = 500
# Messages with attachments in one batch, each as large as the gateway takes one.
MEDIA_BATCH = 8

_route = table_of(InboundRoute).c
_event = table_of(InboundEvent).c
_session = table_of(AgentSession).c
_UNAPPENDED = (
    select(
        _route.id,
        _route.event_id,
        _route.trigger,
        _route.inbound_id,
        _route.reply_channel_type,
        _route.reply_platform_id,
        _route.reply_thread_id,
        _event.kind,
        _event.timestamp,
        _event.content,
        _event.received_at,
    )
    .join(table_of(InboundEvent), _event.id == _route.event_id)
    # Written out, so that SQLite sees that the partial index fits.
    .where(_route.session_id == bindparam("session_id"), text("inbound_routes.state = 'pending'"))
    .order_by(_route.id)
    .limit(BATCH)
)
_SESSION = select(
    _session.agent_group_id,
    _session.status,
    exists()
    .where(_route.session_id == bindparam("session_id"), text("inbound_routes.state = 'pending'"))
    .label("waiting"),
).where(_session.id == bindparam("session_id"))
_MARK = (
    update(table_of(InboundRoute))
    .where(_route.id.in_(bindparam("route_ids", expanding=True)), _route.state == "pending")
    .values(state=case((_route.trigger == 1, "appended"), else_="context"), appended_at=bindparam("now"))
)
_ACTIVE = (
    update(table_of(AgentSession))
    .where(_session.id == bindparam("of_session"))
    .values(last_active=bindparam("now"), append_error=None)
)
# Due at once; the version makes a recomputation that read the file before these rows change nothing.
_DUE = _ACTIVE.values(next_due_at=0, due_version=_session.due_version + 1)


@dataclass(frozen=True)
class Appended:
    """What one call did: routes appended, and whether one of them wakes the session.

    `told`: the session is closed, and its chat is told; ring `deliver` for it.
    """

    routes: int = 0
    trigger: bool = False
    told: bool = False


def append_session(db: Database, files_dir: Path, session_id: str) -> Appended:
    """Append all routes of a session that wait, in route order, and make its folder if it has none yet.

    Those of a closed session end instead, with a notice to their chat.

    Run this on the session's host. Raises `NotFoundError` for an unknown session, `SessionFileError` or
    `HostileFileError` when its files cannot be used, `DependencyDownError` when the central database is away.
    """
    with db.read_core() as connection:
        found = connection.execute(_SESSION, {"session_id": session_id}).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no session {session_id}.")
    if found.status != "active":
        return _refuse(db, session_id)
    folder = SessionFolder.of(files_dir, found.agent_group_id, session_id)
    done, more = Appended(), found.waiting
    try:
        while more:
            batch, more = _append_batch(db, folder, session_id)
            done = Appended(done.routes + batch.routes, done.trigger or batch.trigger, batch.told)
    except (SessionFileError, HostileFileError, OSError) as error:
        _record_failure(db, session_id, error)
        if isinstance(error, NanotasksError):
            raise
        raise SessionFileError(
            f"The files of the session {session_id} cannot be written.",
            why=str(error),
            fix="Check that the disk has room and that the folder is writable.",
        ) from error
    return done


def tell_of_failure(db: Database, config: Settings, session_id: str) -> bool:
    """Tell the chats whose messages have waited for long that they are kept, each once; whether one was told just now.

    Call it when an append has failed, and ring `deliver` for the session if so.
    """
    before = now_ms() - round(config.append_failing_told_s * 1000)
    with db.write_core() as connection:
        return tell_waiting(connection, session_id, KEPT, states=("pending",), before_ms=before)


def _refuse(db: Database, session_id: str) -> Appended:
    with db.write_core() as connection:
        return Appended(told=end_unfinished(connection, session_id))


def _append_batch(db: Database, folder: SessionFolder, session_id: str) -> tuple[Appended, bool]:
    """Append up to `BATCH` routes; what was done, and whether more wait."""
    if not folder.inbound_db.exists():
        folder.create()
    with open_inbound(folder) as inbound, inbound.transaction():
        with db.read_core() as connection:
            routes = _together(connection.execute(_UNAPPENDED, {"session_id": session_id}).all())
            blobs = read_blobs(connection, [route.event_id for route in routes if BLOB in route.content])
        inbound.insert([_row(folder, route, blobs.get(route.event_id, {})) for route in routes])
        faults.point("append.before_commit")
    if not routes:
        return Appended(), False
    faults.point("append.after_commit")
    trigger = any(route.trigger for route in routes)
    with db.write_core() as connection:
        marked = _mark(connection, session_id, [route.id for route in routes], trigger=trigger)
        if blobs:
            delete_arrived(connection, list(blobs))
        # A router that commits after this look signals the session itself.
        now = connection.execute(_SESSION, {"session_id": session_id}).one()
        if now.status != "active":
            # It was closed in the meantime, and nobody would look at these rows again.
            return Appended(marked, told=end_unfinished(connection, session_id)), False
    faults.point("append.after_mark")
    _log.info("appended", session=session_id, inbound=[route.inbound_id for route in routes], wakes=trigger)
    return Appended(marked, trigger and marked > 0), now.waiting


def _together(routes: Sequence[Any]) -> Sequence[Any]:
    """As many of the first routes as may be in memory at one time, with their attachments."""
    with_media = [number for number, route in enumerate(routes) if BLOB in route.content]
    return routes[: with_media[MEDIA_BATCH]] if len(with_media) > MEDIA_BATCH else routes


def _row(folder: SessionFolder, route: Any, blobs: Mapping[str, bytes]) -> NewRow:
    said_ms = read_ms(route.timestamp)
    timestamp_ms = route.received_at if said_ms is None else said_ms
    extracted = extract_attachments(folder, route.inbound_id, route.content, timestamp_ms, blobs.get)
    for file in extracted.refused:
        _log.warning("attachment_left_out", event_id=route.event_id, name=file.name, reason=file.reason)
    return NewRow(
        id=route.inbound_id,
        kind=route.kind,
        content=extracted.content,
        timestamp_ms=timestamp_ms,
        platform_id=route.reply_platform_id,
        channel_type=route.reply_channel_type,
        thread_id=route.reply_thread_id,
        trigger=route.trigger,
    )


def _mark(connection: Connection, session_id: str, route_ids: Sequence[int], *, trigger: bool) -> int:
    """Mark the routes; how many were not marked yet, by an appender that had the file's lock before."""
    now = now_ms()
    marked = connection.execute(_MARK, {"route_ids": route_ids, "now": now}).rowcount
    if marked:
        connection.execute(_DUE if trigger else _ACTIVE, {"of_session": session_id, "now": now})
    return marked


def _record_failure(db: Database, session_id: str, error: Exception) -> None:
    _log.error("append_failed", session=session_id, error=str(error))
    with db.write() as session:
        told = update(AgentSession).where(AgentSession.id == session_id)
        session.execute(told.values(append_error=shorten(f"{type(error).__name__}: {error}")))
