"""What policy does before the runner: occurrences that are late, and those that would overlap.

Both work in the caller's transaction, with inbound.db locked and the agent's claims already recorded, so that what is
withdrawn here is in nobody's hands.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.schedule import runs
from nanotasks.settings import Settings


def decide_on_late(session: Session, settings: Settings, session_id: str, now: int) -> None:
    """Apply the misfire policies to planned occurrences whose time has passed."""
    late = session.scalars(
        select(TaskRun).where(
            TaskRun.session_id == session_id,
            TaskRun.state == "planned",
            TaskRun.origin == "schedule",
            TaskRun.due_at < now - round(settings.task_misfire_grace_s * 1000),
            TaskRun.due_at == TaskRun.scheduled_for,
        )
    ).all()
    for run in late:
        series = runs.locked(session, run.series_id)
        if series is None or series.state != "active":
            continue
        decided = runs.late_plan(settings, series, run.scheduled_for, now)
        if decided.next_at == run.scheduled_for:
            continue
        runs.withdraw(run, "missed", "Nobody could take it at its time.", now)
        session.flush()
        runs.follow_plan(session, series, decided, now)


def withdraw_overlapping(session: Session, settings: Settings, session_id: str, now: int) -> None:
    """Occurrences that are about to be due while the run before them is at work, where the series says `skip`."""
    lead_ms = round(settings.task_guard_lead_s * 1000)
    soon = session.scalars(
        select(TaskRun)
        .join(TaskSeries, TaskSeries.id == TaskRun.series_id)
        .where(
            TaskRun.session_id == session_id,
            TaskRun.state == "planned",
            TaskRun.origin == "schedule",
            TaskRun.due_at <= now + lead_ms,
            TaskSeries.overlap == "skip",
        )
    ).all()
    for run in soon:
        series = runs.locked(session, run.series_id)
        if series is not None and runs.is_working(session, run.series_id):
            runs.withdraw(run, "skipped", "The run before it was still at work.", now)
            session.flush()
            runs.plan_successor(session, settings, run, series, now)
