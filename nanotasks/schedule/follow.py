"""What the agent does with its task rows, as the host sees it in outbound.db: claims and ends.

Called while inbound.db is locked and before rows are completed there, in one central transaction, so that an ack that
is seen twice changes nothing the second time and an end is never lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks import logs
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.channels.contract import Address
from nanotasks.deliver.host_messages import enter_host_message
from nanotasks.domain.delivery import shorten
from nanotasks.schedule import runs
from nanotasks.session.rows import TaskReport
from nanotasks.settings import Settings

_log = logs.get("schedule")

# The arguments of `signals.ring`: a kind and its ids.
Signal: TypeAlias = tuple[str, Any, *tuple[Any, ...]]


@dataclass(frozen=True)
class Taken:
    """A task row that the agent has acknowledged: `processing`, `completed` or `failed`, and what it reports."""

    inbound_id: str
    ack: str
    report: TaskReport

    @property
    def ended(self) -> bool:
        """Whether the agent is done with it."""
        return self.ack != "processing"


def record(session: Session, settings: Settings, session_id: str, taken: Sequence[Taken], now: int) -> list[Signal]:
    """Record claims and ends in the caller's transaction; what to ring after its commit."""
    if not taken:
        return []
    by_id = {one.inbound_id: one for one in taken}
    found = session.scalars(
        select(TaskRun).where(TaskRun.session_id == session_id, TaskRun.inbound_id.in_(by_id)).order_by(TaskRun.due_at)
    ).all()
    told = False
    for run in found:
        told |= _follow(session, settings, run, by_id[run.inbound_id], now)
    return [("deliver", session_id, settings.host_id)] if told else []


def _follow(session: Session, settings: Settings, run: TaskRun, taken: Taken, now: int) -> bool:
    """Whether the chat is told of something."""
    if run.state == "ended" and run.outcome in {"succeeded", "failed"}:
        return False
    if run.state != "claimed":
        if run.state == "ended" and not _is_open_claim(run, taken):
            return False
        runs.claim(session, settings, run, taken.report, now)
        _log.info("run_claimed", run=run.id, series=run.series_id, inbound=run.inbound_id, late_ms=run.lateness_ms)
    if not taken.ended:
        return False
    end = runs.end(session, settings, run, _ended(taken), now)
    _log.info("run_ended", run=run.id, series=run.series_id, outcome=run.outcome or end, error=run.error_text)
    return _tell(session, run, end)


def _is_open_claim(run: TaskRun, taken: Taken) -> bool:
    """Whether a run that was withdrawn was in the agent's hands by then; the ack of a run done with long ago is not."""
    return run.projected_at is None and run.outcome in {"missed", "skipped", "cancelled"} and bool(taken.ack)


def _ended(taken: Taken) -> TaskReport:
    """The report of an end; a runner that reports nothing, as NanoClaw 2's, says by its ack what it says."""
    if taken.report.outcome in {"succeeded", "failed", "not_woken"}:
        return taken.report
    return TaskReport(outcome="failed" if taken.ack == "failed" else "succeeded")


def _tell(session: Session, run: TaskRun, end: str) -> bool:
    """Tell the chat of a series that gave up, and of a single task that failed."""
    if end not in {"paused", "failed_for_good"}:
        return False
    series = session.get_one(TaskSeries, run.series_id)
    if not series.channel_type or not series.platform_id:
        return False
    what = shorten(series.name or series.prompt)[:80]
    text = f"The scheduled task “{what}” failed: {run.error_text}"
    if end == "paused":
        text = f"I paused the scheduled task “{what}”: {series.failures} runs in a row failed. {run.error_text}"
    address = Address(series.channel_type, series.platform_id, series.thread_id)
    enter_host_message(session, series.session_id, f"task-{run.id}-{run.attempts}", address, text)
    return True
