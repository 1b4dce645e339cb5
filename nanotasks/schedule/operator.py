"""What an operator does about single runs (promise I8: an end is left by such a verb only, with its audit row)."""

from __future__ import annotations

from sqlalchemy.orm import Session

from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.clock import now_ms
from nanotasks.errors import ConflictError
from nanotasks.schedule import runs


def series_of(session: Session, run: TaskRun) -> TaskSeries:
    """The series of a run."""
    return session.get_one(TaskSeries, run.series_id)


def retry(session: Session, run: TaskRun) -> None:
    """Have a run done once more, now. Raises `ConflictError` for one that is at work, or did what it was to do."""
    now = now_ms()
    runs.locked(session, run.series_id)
    session.refresh(run)
    if run.state == "claimed":
        raise ConflictError(f"The run {run.id} is at work now.", fix="Wait for its end, and look again.")
    if run.outcome == "succeeded":
        raise ConflictError(
            f"The run {run.id} has succeeded.", fix=f"To do it again: `nanotasks task run {run.series_id}`."
        )
    if run.state == "ended":
        runs.revive(run, now)
    else:
        run.due_at = now
        runs.touch(run, now)


def give_up(session: Session, run: TaskRun, reason: str) -> None:
    """Withdraw a run that waits. Raises `ConflictError` where the agent has taken it, or it has ended."""
    now = now_ms()
    runs.locked(session, run.series_id)
    session.refresh(run)
    if run.state == "claimed":
        raise ConflictError(f"It is too late: the agent is at work on the run {run.id}.", fix="Wait for its end.")
    if run.state == "ended":
        raise ConflictError(f"The run {run.id} has ended already: {run.outcome}.")
    # What was tried has failed; what never was is cancelled.
    runs.withdraw(run, "failed" if run.attempts else "cancelled", reason, now)
