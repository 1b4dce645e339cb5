"""The verbs on runs. Each works in the caller's transaction on rows it has read there, and leaves the file to others.

The caller holds the series' row (`of_series`, `locked`), so that two who plan a successor do it one after the other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from nanotasks.central.engine import insert_missing
from nanotasks.central.series import TaskAttempt, TaskRun, TaskSeries
from nanotasks.clock import iso
from nanotasks.domain.backoff import jittered
from nanotasks.domain.delivery import shorten
from nanotasks.domain.misfire import Plan, plan
from nanotasks.ids import new_id
from nanotasks.schedule.definition import misfire_of, next_after
from nanotasks.session.rows import TaskReport
from nanotasks.settings import Settings

OPEN = ("planned", "claimed", "retrying")
WAITING = ("planned", "retrying")
MAX_RESULT = 20_000


def locked(session: Session, series_id: str) -> TaskSeries | None:
    """A series, its row locked until the end of the transaction."""
    return session.get(TaskSeries, series_id, with_for_update=True, populate_existing=True)


def open_runs(session: Session, series_id: str, *states: str) -> list[TaskRun]:
    """The runs of a series in these states (all that are not ended by default), in the order of their times."""
    wanted = select(TaskRun).where(TaskRun.series_id == series_id, TaskRun.state.in_(states or OPEN))
    return list(session.scalars(wanted.order_by(TaskRun.scheduled_for)))


def touch(run: TaskRun, now: int) -> None:
    """Have a run's row in the file brought up to date."""
    run.version += 1
    run.updated_at = now
    run.projected_at = None
    run.signalled_at = None


def late_plan(settings: Settings, series: TaskSeries, first: int | None, now: int) -> Plan:
    """What follows by the series' misfire policy, where `first` is the earliest occurrence not decided on."""
    return plan(first, lambda moment: next_after(series, moment), now, misfire_of(series, settings))


def follow_plan(session: Session, series: TaskSeries, decided: Plan, now: int) -> TaskRun | None:
    """Record what was missed, and plan what follows."""
    record_missed(session, series, decided, now)
    series.next_at = decided.next_at
    return None if decided.next_at is None else add_run(session, series, decided.next_at, now)


def plan_following(
    session: Session, settings: Settings, series: TaskSeries, first: int | None, now: int
) -> TaskRun | None:
    """Plan the next run of an active series and record those missed; another series has none."""
    if series.state != "active":
        series.next_at = None
        return None
    return follow_plan(session, series, late_plan(settings, series, first, now), now)


def plan_successor(session: Session, settings: Settings, run: TaskRun, series: TaskSeries, now: int) -> TaskRun | None:
    """Plan what follows an occurrence that was claimed or decided on; nothing where that has been done already."""
    if run.origin != "schedule" or series.next_at != run.scheduled_for:
        return None
    return plan_following(session, settings, series, next_after(series, run.scheduled_for), now)


def add_run(session: Session, series: TaskSeries, at: int, now: int, *, origin: str = "schedule") -> TaskRun | None:
    """A planned run for one time; None where that occurrence is there already."""
    values = {
        "id": new_id("run"),
        "series_id": series.id,
        "session_id": series.session_id,
        "scheduled_for": at,
        "due_at": at,
        "origin": origin,
        "state": "planned",
        "inbound_id": _inbound_id(session, series, at),
        "created_at": now,
        "updated_at": now,
    }
    session.execute(insert_missing(session, TaskRun), values)
    return session.get(TaskRun, values["id"])


def _inbound_id(session: Session, series: TaskSeries, at: int) -> str:
    """The id of an occurrence's row. The first one of a series has the series' own, as NanoClaw 2's tasks have."""
    earlier = select(TaskRun.id).where(TaskRun.series_id == series.id).limit(1)
    return f"{series.id}@{at}" if session.scalar(earlier) else series.id


def record_missed(session: Session, series: TaskSeries, decided: Plan, now: int) -> None:
    """Enter occurrences that nobody took as runs with the outcome `missed`."""
    if not decided.missed:
        return
    note = None
    if decided.unlisted_until is not None:
        note = f"More were missed after this one, until {iso(decided.unlisted_until)}; they are not listed."
    entered = [
        {
            "id": new_id("run"),
            "series_id": series.id,
            "session_id": series.session_id,
            "scheduled_for": at,
            "due_at": at,
            "origin": "schedule",
            "state": "ended",
            "outcome": "missed",
            "inbound_id": f"{series.id}@{at}",
            "finished_at": now,
            "projected_at": now,
            "note": note if at == decided.missed[-1] else None,
            "created_at": now,
            "updated_at": now,
        }
        for at in decided.missed
    ]
    session.execute(insert_missing(session, TaskRun), entered)


def withdraw(run: TaskRun, outcome: str, note: str | None, now: int) -> None:
    """End a run that nobody has claimed: `missed`, `skipped` or `cancelled`."""
    run.state, run.outcome, run.note, run.finished_at = "ended", outcome, note, now
    touch(run, now)


def revive(run: TaskRun, now: int, *, origin: str | None = None) -> None:
    """Have an ended run taken once more, as a further attempt; an operator's verb (promise I8)."""
    run.state, run.outcome, run.finished_at, run.due_at = "planned", None, None, now
    run.origin = origin or run.origin
    run.note = run.error_class = run.error_text = None
    run.inbound_id = f"{run.inbound_id.partition('~')[0]}~{run.attempts + 1}"
    touch(run, now)


def claim(session: Session, settings: Settings, run: TaskRun, report: TaskReport, now: int) -> TaskRun | None:
    """Record that the agent took a run's row; the successor that was planned with it.

    A run that was withdrawn in the same moment runs all the same, and its note says so.
    """
    if run.state == "claimed":
        return None
    at = _believed(report.claimed_ms, run.due_at, now)
    if run.state == "ended":
        run.note = f"It was to be {run.outcome}, but that came too late: the agent had taken it."
        run.outcome, run.finished_at = None, None
    if run.attempts == 0:
        run.lateness_ms = max(0, at - run.due_at)
    run.state, run.attempts, run.updated_at = "claimed", run.attempts + 1, now
    run.claimed_at = run.claimed_at or at
    run.error_class = run.error_text = None
    session.add(TaskAttempt(run_id=run.id, number=run.attempts, inbound_id=run.inbound_id, claimed_at=at))
    series = locked(session, run.series_id)
    return None if series is None else plan_successor(session, settings, run, series, now)


def _believed(claimed_ms: int | None, due_at: int, now: int) -> int:
    """When the agent says that it took the row, if that can be; due times count to the second."""
    return claimed_ms if claimed_ms is not None and due_at // 1000 * 1000 <= claimed_ms <= now else now


def end(session: Session, settings: Settings, run: TaskRun, report: TaskReport, now: int) -> str:
    """Record how a claimed run ended. Returns `ended`, `retrying`, `paused` (its series gave up) or `failed_for_good`.

    `failed_for_good` is the failure of a series that has no other run.
    """
    series = locked(session, run.series_id)
    failed = report.outcome == "failed"
    error_class = (report.error_class or "other") if failed else None
    error_text = shorten(report.error or "The agent did not say why.") if failed else None
    attempt = session.get(TaskAttempt, (run.id, run.attempts))
    if attempt is not None:
        attempt.finished_at = now
        attempt.outcome = "failed" if failed else "succeeded"
        attempt.error_class, attempt.error_text = error_class, error_text
    run.error_class, run.error_text, run.updated_at = error_class, error_text, now
    run.result = report.result[:MAX_RESULT] if report.result else None
    if series is not None and failed and _may_try_again(series, run, error_class):
        _try_again(settings, run, now)
        return "retrying"
    run.state, run.finished_at = "ended", now
    run.outcome = "failed" if failed else "succeeded"
    if report.outcome == "not_woken":
        run.note = "The script found nothing to do, so the agent was not asked."
    return "ended" if series is None else _count(session, series, run, failed=failed, now=now)


def _may_try_again(series: TaskSeries, run: TaskRun, error_class: str | None) -> bool:
    classes = series.retry_classes.split(",")
    return series.state != "cancelled" and error_class in classes and run.attempts < series.attempts_max


def _try_again(settings: Settings, run: TaskRun, now: int) -> None:
    pause_ms = jittered(
        run.attempts,
        round(settings.task_backoff_s * 1000),
        round(settings.task_backoff_max_s * 1000),
        random.random(),
    )
    run.state, run.due_at = "retrying", now + pause_ms
    run.inbound_id = f"{run.inbound_id.partition('~')[0]}~{run.attempts + 1}"
    touch(run, now)


def _count(session: Session, series: TaskSeries, run: TaskRun, *, failed: bool, now: int) -> str:
    series.failures = series.failures + 1 if failed else 0
    series.updated_at = now
    session.flush()
    if series.state == "active" and series.next_at is None and not open_runs(session, series.id):
        series.state = "completed"
        return "failed_for_good" if failed else "ended"
    if failed and series.state == "active" and 0 < series.failures_max <= series.failures:
        pause(session, series, now, reason=f"{series.failures} runs in a row failed, the last one: {run.error_text}")
        return "paused"
    return "ended"


def pause(session: Session, series: TaskSeries, now: int, *, until: int | None = None, reason: str = "") -> None:
    """Pause a series; its planned runs stay where they are, and are not taken."""
    series.state, series.paused_until, series.paused_reason = "paused", until, reason or None
    series.updated_at, series.version = now, series.version + 1
    for run in open_runs(session, series.id, *WAITING):
        touch(run, now)


def resume(session: Session, settings: Settings, series: TaskSeries, now: int) -> None:
    """Let a paused series go on: what its schedule would have brought meanwhile is skipped, a single run is not."""
    series.state, series.paused_until, series.paused_reason = "active", None, None
    series.failures, series.updated_at, series.version = 0, now, series.version + 1
    for run in open_runs(session, series.id, *WAITING):
        if run.state == "planned" and run.origin == "schedule" and series.kind != "once" and run.due_at < now:
            withdraw(run, "skipped", "The series was paused at its time.", now)
        else:
            touch(run, now)
    session.flush()
    planned = [run for run in open_runs(session, series.id, "planned") if run.origin == "schedule"]
    if planned:
        series.next_at = planned[0].scheduled_for
    else:
        plan_following(session, settings, series, next_after(series, now), now)


def cancel(session: Session, series: TaskSeries, now: int) -> int:
    """End a series: nothing of it is started any more. Returns how many of its runs the agent has already taken."""
    series.state, series.next_at, series.paused_until = "cancelled", None, None
    series.updated_at, series.version = now, series.version + 1
    for run in open_runs(session, series.id, *WAITING):
        withdraw(run, "cancelled", "The series was cancelled.", now)
    return len(open_runs(session, series.id, "claimed"))


def is_working(session: Session, series_id: str, *, but: Iterable[str] = ()) -> bool:
    """Whether a run of the series is in the agent's hands, or failed and will be tried again."""
    working = select(func.count()).where(
        TaskRun.series_id == series_id,
        or_(TaskRun.state == "claimed", TaskRun.state == "retrying"),
        TaskRun.id.not_in(list(but)),
    )
    return bool(session.scalar(working))
