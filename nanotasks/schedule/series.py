"""The verbs on series, for agents and operators alike. Each works in the caller's transaction.

After its commit the file has to follow: ring `project` for the series' session, or call `project` on its host.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.agents.projection import routing_of
from nanotasks.central.engine import insert_missing
from nanotasks.central.groups import AgentGroup
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, now_ms
from nanotasks.domain import recurrence
from nanotasks.errors import ConflictError, InvalidError
from nanotasks.ids import new_id
from nanotasks.schedule import runs
from nanotasks.schedule.definition import (
    Definition,
    check_id,
    check_options,
    check_prompt,
    check_schedule,
    check_script,
    next_after,
    schedule_of,
)
from nanotasks.settings import Settings

# Of a backfill, and of runs by hand that fall into the same millisecond.
MAX_BACKFILL = 1000


@dataclass(frozen=True)
class Change:
    """What is to be changed of a series; None leaves it. An empty script takes the script away."""

    prompt: str | None = None
    script: str | None = None
    name: str | None = None
    kind: str | None = None
    expression: str | None = None
    zone: str | None = None
    next_at: int | None = None
    misfire: str | None = None
    misfire_window_s: int | None = None
    overlap: str | None = None
    attempts_max: int | None = None
    failures_max: int | None = None


def define(
    session: Session,
    settings: Settings,
    agent_session: AgentSession,
    definition: Definition,
    *,
    created_by: str,
    series_id: str | None = None,
    own_session: bool = False,
    address: tuple[str | None, str | None, str | None] | None = None,
) -> TaskSeries:
    """Make a series and plan its first run. The same id twice is one series, which is returned as it is.

    Raises `InvalidError` for what cannot be, `ConflictError` for an id that another agent group's series has.
    """
    series_id = check_id(series_id or new_id("task"))
    known = session.get(TaskSeries, series_id)
    if known is not None:
        if known.agent_group_id != agent_session.agent_group_id:
            raise ConflictError(f"There is a task {series_id} already, of another agent.")
        return known
    schedule = check_schedule(definition.kind, definition.expression, definition.zone)
    options = check_options(definition.options)
    now = now_ms()
    first_at, anchor = _beginning(definition, schedule, now)
    home = _own_session(session, agent_session, series_id) if own_session else agent_session
    channel_type, platform_id, thread_id = address or routing_of(session, agent_session)
    series = TaskSeries(
        id=series_id,
        agent_group_id=agent_session.agent_group_id,
        session_id=home.id,
        name=definition.name,
        prompt=check_prompt(definition.prompt),
        script=check_script(definition.script),
        kind=definition.kind,
        expression=definition.expression.strip(),
        anchor_at=anchor,
        zone=definition.zone,
        channel_type=channel_type,
        platform_id=platform_id,
        thread_id=thread_id,
        misfire=options.misfire,
        misfire_window_s=options.misfire_window_s,
        overlap=options.overlap,
        attempts_max=options.attempts_max or settings.task_attempts_max,
        retry_classes=",".join(options.retry_classes),
        failures_max=settings.task_failures_max if options.failures_max is None else options.failures_max,
        next_at=first_at,
        created_by=created_by,
        created_at=now,
        updated_at=now,
    )
    session.add(series)
    session.flush()
    runs.add_run(session, series, first_at, now)
    return series


def _beginning(definition: Definition, schedule: recurrence.Schedule, now: int) -> tuple[int, int | None]:
    """The first occurrence, and the anchor of an every-N schedule: whole seconds, since rows are due by the second."""
    if schedule.every_ms:
        anchor = definition.first_at if definition.first_at is not None else now // 1000 * 1000 + schedule.every_ms
        return anchor, anchor
    if definition.first_at is not None:
        return definition.first_at, None
    # A single time that has passed runs at once: whoever gave it wants it done.
    after = -1 if definition.kind == "once" else now
    first = recurrence.next_of(schedule, definition.zone, after)
    if first is None:
        raise InvalidError(f"The schedule {definition.expression!r} never comes.")
    return first, None


def _own_session(session: Session, beside: AgentSession, series_id: str) -> AgentSession:
    """The session of a series that runs apart from its chat's; its plain answers still go to that chat."""
    key = f'["task","{series_id}"]'
    session.execute(
        insert_missing(session, AgentSession),
        {
            "id": new_id("sess"),
            "agent_group_id": beside.agent_group_id,
            "messaging_group_id": beside.messaging_group_id,
            "thread_id": beside.thread_id,
            "route_key": key,
            "created_at": now_ms(),
        },
    )
    mine = select(AgentSession).where(AgentSession.route_key == key, AgentSession.status == "active")
    return session.scalars(mine).one()


def change(session: Session, settings: Settings, series: TaskSeries, wanted: Change) -> list[str]:
    """Change a series; what changed, by name. The planned run follows, unless the agent has it already."""
    _require_alive(series)
    now = now_ms()
    before = {name: getattr(series, name) for name in _FIELDS}
    _apply(series, wanted)
    if wanted.kind is not None or wanted.expression is not None or wanted.zone is not None:
        _change_schedule(session, settings, series, wanted, now)
    if wanted.next_at is not None:
        _move(session, series, wanted.next_at, now)
    changed = [name for name, value in before.items() if getattr(series, name) != value]
    if wanted.next_at is not None:
        changed.append("next_at")
    series.updated_at, series.version = now, series.version + 1
    for run in runs.open_runs(session, series.id, *runs.WAITING):
        runs.touch(run, now)
    return changed


_FIELDS = (
    "prompt",
    "script",
    "name",
    "kind",
    "expression",
    "zone",
    "misfire",
    "misfire_window_s",
    "overlap",
    "attempts_max",
    "failures_max",
)


def _apply(series: TaskSeries, wanted: Change) -> None:
    if wanted.prompt is not None:
        series.prompt = check_prompt(wanted.prompt)
    if wanted.script is not None:
        series.script = check_script(wanted.script)
    for name in ("name", "misfire", "misfire_window_s", "overlap", "attempts_max", "failures_max"):
        value: Any = getattr(wanted, name)
        if value is not None:
            setattr(series, name, value)
    check_options(
        replace(
            Definition("x", "once", "x", "UTC").options,
            misfire=series.misfire,
            misfire_window_s=series.misfire_window_s,
            overlap=series.overlap,
            attempts_max=series.attempts_max,
            failures_max=series.failures_max,
        )
    )


def _change_schedule(session: Session, settings: Settings, series: TaskSeries, wanted: Change, now: int) -> None:
    """A new schedule begins now: the run that the old one planned gives way, unless its time was moved by hand."""
    kind, expression = wanted.kind or series.kind, (wanted.expression or series.expression).strip()
    zone = wanted.zone or series.zone
    if kind == "once" and series.kind != "once" and wanted.expression is None:
        expression = iso(series.next_at or now)
    schedule = check_schedule(kind, expression, zone)
    series.kind, series.expression, series.zone = kind, expression, zone
    series.anchor_at = None
    if schedule.every_ms:
        series.anchor_at = series.next_at or now // 1000 * 1000 + schedule.every_ms
    planned = [run for run in runs.open_runs(session, series.id, "planned") if run.origin == "schedule"]
    # A recurrence that changes leaves the next occurrence where it is (NanoClaw 2's rule); a new time moves it.
    if kind == "once" and wanted.expression is not None and planned:
        _move(session, series, next_after(series, -1) or now, now)
    elif wanted.zone is not None and wanted.next_at is None and kind == "cron" and planned:
        _move(session, series, next_after(series, now) or now, now)
    elif not planned and series.state == "active":
        runs.plan_following(session, settings, series, next_after(series, now), now)


def _move(session: Session, series: TaskSeries, at: int, now: int) -> None:
    """Move the next occurrence to another time; it stays the same occurrence."""
    for run in runs.open_runs(session, series.id, "planned"):
        if run.origin == "schedule":
            run.due_at = at
            run.note = f"It was moved from {iso(run.scheduled_for)}." if at != run.scheduled_for else None
            runs.touch(run, now)
            return
    if series.state == "active" and runs.add_run(session, series, at, now) is not None:
        series.next_at = at


def pause(session: Session, series: TaskSeries, until: int | None, reason: str) -> bool:
    """Pause a series until it is resumed, or a moment; False when it is paused already."""
    _require_alive(series)
    if series.state == "paused" and series.paused_until == until:
        return False
    runs.pause(session, series, now_ms(), until=until, reason=reason)
    return True


def resume(session: Session, settings: Settings, series: TaskSeries) -> bool:
    """Let a paused series go on; False when it is not paused."""
    _require_alive(series)
    if series.state != "paused":
        return False
    runs.resume(session, settings, series, now_ms())
    return True


def cancel(session: Session, series: TaskSeries) -> int:
    """End a series; how many of its runs are in the agent's hands already, for which it is too late."""
    if series.state in {"completed", "cancelled"}:
        return 0
    return runs.cancel(session, series, now_ms())


def run_now(session: Session, series: TaskSeries) -> TaskRun:
    """Plan a run for now, beside the schedule."""
    now = now_ms()
    for at in range(now, now + MAX_BACKFILL):
        run = runs.add_run(session, series, at, now, origin="manual")
        if run is not None:
            return run
    raise ConflictError(f"The task {series.id} was run too often within a second.", fix="Try again in a moment.")


def missing_between(session: Session, series: TaskSeries, start: int, end: int, most: int) -> list[int]:
    """The occurrences of a series in a span of time that no run stands for, the oldest first, at most so many."""
    times = recurrence.between(schedule_of(series), series.zone, start, end, MAX_BACKFILL * 10)
    known = select(TaskRun.scheduled_for).where(
        TaskRun.series_id == series.id, TaskRun.scheduled_for >= start, TaskRun.scheduled_for < end
    )
    taken = set(session.scalars(known.where(TaskRun.outcome.is_distinct_from("missed"))))
    return [at for at in times if at not in taken][:most]


def backfill(session: Session, series: TaskSeries, times: list[int]) -> list[TaskRun]:
    """Plan runs for these occurrences, to be taken one after the other; one that was missed runs after all."""
    now, planned = now_ms(), []
    for at in times:
        run = runs.add_run(session, series, at, now, origin="backfill")
        if run is None:
            run = session.scalars(
                select(TaskRun).where(
                    TaskRun.series_id == series.id, TaskRun.scheduled_for == at, TaskRun.outcome == "missed"
                )
            ).one_or_none()
            if run is None:
                continue
            runs.revive(run, now, origin="backfill")
        planned.append(run)
    return planned


def host_of(session: Session, series: TaskSeries) -> str | None:
    """The host that has the files of a series' session; None while its agent group has no host."""
    return session.scalar(select(AgentGroup.host_id).where(AgentGroup.id == series.agent_group_id))


def _require_alive(series: TaskSeries) -> None:
    if series.state in {"completed", "cancelled"}:
        raise ConflictError(
            f"The task {series.id} is {series.state}.", fix="Make a new one with `nanotasks task create`."
        )
