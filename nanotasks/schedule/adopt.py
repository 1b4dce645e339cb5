"""Task rows that stand in a session's file and were planned by nobody here: those of NanoClaw 2, or of a restored file.

When the agent takes such a row it becomes a series with a run, so that a recurring task goes on and has a history. Its
schedule goes by the session's clock from then on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks import logs
from nanotasks.central.series import TaskRun
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, parse_ms
from nanotasks.errors import NanotasksError
from nanotasks.schedule import series as series_
from nanotasks.schedule.definition import Definition, kind_of
from nanotasks.schedule.zones import zone_of
from nanotasks.session.inbound import Inbound
from nanotasks.session.rows import InboundRow
from nanotasks.settings import Settings

_log = logs.get("schedule")
_BY = "the session's file"


def adopt(
    session: Session, settings: Settings, session_id: str, inbound: Inbound, inbound_ids: Iterable[str], now: int
) -> None:
    """Make series and runs of those task rows that no run is known of, in the caller's transaction."""
    wanted = set(inbound_ids)
    known = select(TaskRun.inbound_id).where(TaskRun.session_id == session_id, TaskRun.inbound_id.in_(wanted))
    for unknown in sorted(wanted - set(session.scalars(known))):
        row = inbound.row(unknown)
        if row is None or row.kind != "task":
            continue
        try:
            with session.begin_nested():
                _adopt(session, settings, session.get_one(AgentSession, session_id), row, now)
        except NanotasksError as error:
            # It was done all the same; only its future is not known.
            _log.warning("task_not_adopted", session=session_id, inbound=row.id, reason=str(error))


def _adopt(session: Session, settings: Settings, home: AgentSession, row: InboundRow, now: int) -> None:
    at = (parse_ms(row.process_after) if row.process_after else None) or now
    prompt, script = _content(row.content)
    recurrence = (row.recurrence or "").strip() or None
    definition = Definition(
        prompt=prompt,
        kind=kind_of(recurrence),
        expression=recurrence or iso(at),
        zone=zone_of(session, settings, home),
        first_at=at,
        script=script,
    )
    made = series_.define(
        session,
        settings,
        home,
        definition,
        created_by=_BY,
        series_id=row.series_id or row.id,
        address=(row.channel_type, row.platform_id, row.thread_id),
    )
    run = session.scalars(
        select(TaskRun).where(TaskRun.series_id == made.id, TaskRun.scheduled_for == at)
    ).one_or_none()
    if run is not None and run.state == "planned":
        run.inbound_id, run.projected_at = row.id, now
        session.flush()
        _log.info("task_adopted", session=home.id, inbound=row.id, series=made.id)


def _content(text: str) -> tuple[str, str | None]:
    """The prompt and the script of a task row, as its runner reads them."""
    try:
        found = json.loads(text)
    except ValueError:
        return text, None
    if not isinstance(found, dict):
        return text, None
    prompt, script = found.get("prompt") or found.get("text") or text, found.get("script")
    return str(prompt), script if isinstance(script, str) and script else None
