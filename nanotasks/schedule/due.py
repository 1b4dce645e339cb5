"""What the alarm and the sweeps ring for scheduled tasks: files that lag, occurrences to withdraw, pauses that end.

Occurrences that are due need nothing here: they stand in the sessions' files, and a session is due when its file is.
Cost follows what is at work and what has changed, never the number of series.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Select, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from nanotasks.central import Database
from nanotasks.central.base import in_states
from nanotasks.central.groups import AgentGroup
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.clock import now_ms
from nanotasks.schedule import runs
from nanotasks.settings import Settings

Signal: TypeAlias = tuple[str, Any, *tuple[Any, ...]]
AnySelect: TypeAlias = Select[*tuple[Any, ...]]

# A change that was made a moment ago has its own signal on the way.
YOUNG_MS = 1000
# A run that is said to be at work for so long is looked at: its agent may have died of it for good.
WORKING_MS = 300_000

_working = aliased(TaskRun, name="working")


def signals(db: Database, settings: Settings, host_id: str | None = None) -> list[Signal]:
    """What to ring, for one host or for all, and mark it as signalled; ends pauses that are over."""
    now = now_ms()
    with db.read() as session:
        over = session.scalars(_OVER.where(TaskSeries.paused_until <= now).limit(settings.sweep_batch)).all()
        found = [
            *session.execute(_of(host_id, _unprojected(now, settings)).limit(settings.sweep_batch)),
            *session.execute(_of(host_id, _overlapping(now + _lead_ms(settings))).limit(settings.sweep_batch)),
            *session.execute(_of(host_id, _forgotten(now, settings)).limit(settings.sweep_batch)),
        ]
    if not found and not over:
        return []
    with db.write() as session:
        for series_id in over:
            found += _resume(session, settings, series_id, now)
        ids = [run_id for run_id, _, _ in found]
        session.execute(update(TaskRun).where(TaskRun.id.in_(ids)).values(signalled_at=now))
    return list(dict.fromkeys(("project", session_id, host) for _, session_id, host in found if host))


def next_ms(db: Database, settings: Settings, host_id: str) -> int | None:
    """When an occurrence of this host is to be looked at next, because the run before it is still at work."""
    with db.read() as session:
        query = (
            select(func.min(TaskRun.due_at)).select_from(TaskRun).join(TaskSeries, TaskSeries.id == TaskRun.series_id)
        )
        query = query.join(AgentGroup, AgentGroup.id == TaskSeries.agent_group_id)
        at = session.scalar(query.where(AgentGroup.host_id == host_id, _has_working(), TaskRun.signalled_at.is_(None)))
    return None if at is None else at - _lead_ms(settings)


_OVER = select(TaskSeries.id).where(TaskSeries.paused_until.is_not(None), TaskSeries.state == "paused")


def _of(host_id: str | None, query: AnySelect) -> AnySelect:
    joined = query.join(TaskSeries, TaskSeries.id == TaskRun.series_id)
    joined = joined.join(AgentGroup, AgentGroup.id == TaskSeries.agent_group_id)
    return joined if host_id is None else joined.where(AgentGroup.host_id == host_id)


def _found() -> AnySelect:
    return select(TaskRun.id, TaskRun.session_id, AgentGroup.host_id).select_from(TaskRun)


def _unprojected(now: int, settings: Settings) -> AnySelect:
    again = now - round(settings.resignal_after_s * 1000)
    lately = or_(TaskRun.signalled_at.is_(None), TaskRun.signalled_at <= again, TaskRun.signalled_at > now)
    return _found().where(TaskRun.projected_at.is_(None), TaskRun.updated_at <= now - YOUNG_MS, lately)


def _overlapping(until: int) -> AnySelect:
    return _found().where(_has_working(), TaskRun.due_at <= until, TaskRun.signalled_at.is_(None))


def _forgotten(now: int, settings: Settings) -> AnySelect:
    lately = or_(TaskRun.signalled_at.is_(None), TaskRun.signalled_at <= now - WORKING_MS)
    working = (in_states("task_runs", "claimed", "retrying"), TaskRun.state == "claimed")
    return _found().where(*working, TaskRun.updated_at <= now - WORKING_MS, lately)


def _has_working() -> Any:
    """A planned occurrence of a series that does not overlap, behind one that is at work."""
    behind = select(_working.id).where(
        _working.series_id == TaskRun.series_id,
        in_states("working", "claimed", "retrying"),
        _working.scheduled_for < TaskRun.scheduled_for,
    )
    of_busy = TaskRun.series_id.in_(select(_working.series_id).where(in_states("working", "claimed", "retrying")))
    return and_(
        of_busy,
        TaskRun.state == "planned",
        TaskRun.origin == "schedule",
        TaskSeries.overlap == "skip",
        behind.exists(),
    )


def _resume(session: Session, settings: Settings, series_id: str, now: int) -> list[tuple[str, str, str | None]]:
    series = runs.locked(session, series_id)
    if series is None or series.state != "paused" or series.paused_until is None or series.paused_until > now:
        return []
    runs.resume(session, settings, series, now)
    host_id = session.scalar(select(AgentGroup.host_id).where(AgentGroup.id == series.agent_group_id))
    return [(run.id, run.session_id, host_id) for run in runs.open_runs(session, series_id)]


def _lead_ms(settings: Settings) -> int:
    return round(settings.task_guard_lead_s * 1000)
