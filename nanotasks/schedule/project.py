"""Bringing a session's file in line with what is planned for it, and noticing what the agent has taken meanwhile.

    lock      inbound.db's write lock; what the agent acknowledged is read while it is held
    decide    central, one commit: claims and ends of the agent's, occurrences that policy forbids, successors
    write     the file: new rows, changed rows, rows that are not to run any more; one commit
    mark      central: `projected_at` of the runs whose version was written

The same function serves a change by an operator, the moment before an occurrence that may overlap, the moment before a
cold session is woken, and the sweep. Everything in it may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from nanotasks import faults, logs
from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps
from nanotasks.errors import HostileFileError
from nanotasks.schedule import policy, runs
from nanotasks.schedule.adopt import adopt
from nanotasks.schedule.follow import Signal, Taken, record
from nanotasks.session.errors import OutboundBusyError
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.session.rows import InboundRow, NewRow, TaskReport
from nanotasks.settings import Settings
from nanotasks.wake import due

_log = logs.get("schedule")

# Runs that are brought in line in one pass; what is left stays unprojected.
BATCH = 500
Rows: TypeAlias = dict[str, InboundRow]


@dataclass(frozen=True)
class Written:
    """What one run's row in the file is to be, for the version of the run that was read.

    Neither `row` nor `withdrawn`: the agent has it, and the row is left alone.
    """

    run_id: str
    version: int
    inbound_id: str
    row: NewRow | None = None
    paused: bool = False
    withdrawn: bool = False


def project(db: Database, settings: Settings, session_id: str, *, waking: bool = False) -> list[Signal]:
    """Bring one session's file in line; what to ring afterwards. Does nothing on another host.

    `waking`: no agent runs and one is about to be started, so occurrences that are late are decided on first. Raises
    `SessionFileError` when inbound.db cannot be used.
    """
    folder = _folder_here(db, settings, session_id)
    with db.read() as session:
        if folder is None or not _unfinished(session, session_id):
            return []
    if not folder.inbound_db.exists():
        folder.create()
    with open_inbound(folder) as inbound, inbound.transaction():
        with db.read() as session:
            ids = [run.inbound_id for run in _unfinished(session, session_id)]
        rows = {one: row for one in ids if (row := inbound.row(one)) is not None}
        taken = _taken(settings, folder, rows, agent_is_dead=waking)
        if taken is None:
            return [("project", session_id, settings.host_id)]
        with db.write() as session:
            now = now_ms()
            signals = record(session, settings, session_id, taken, now)
            _close_what_was_ended_elsewhere(session, settings, session_id, rows, taken, now)
            if waking:
                policy.decide_on_late(session, settings, session_id, now)
            policy.withdraw_overlapping(session, settings, session_id, now)
            session.flush()
            wanted = _wanted(session, session_id)
        faults.point("schedule.after_decide")
        write(db, inbound, session_id, wanted)
        faults.point("schedule.before_write")
        looked = due.look(db, inbound, session_id, [one.inbound_id for one in taken if one.ended])
    faults.point("schedule.after_write")
    mark(db, wanted, now_ms(), looked)
    if looked.due_ms is not None and looked.due_ms <= now_ms():
        signals.append(("wake", session_id, settings.host_id))
    return signals


def _folder_here(db: Database, settings: Settings, session_id: str) -> SessionFolder | None:
    with db.read() as session:
        found = session.execute(
            select(AgentSession.agent_group_id, AgentGroup.host_id)
            .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
            .where(AgentSession.id == session_id)
        ).one_or_none()
    if found is None or found.host_id != settings.host_id:
        return None
    return SessionFolder.of(settings.files_dir, found.agent_group_id, session_id)


def _unfinished(session: Session, session_id: str) -> Sequence[TaskRun]:
    """Runs that are open, or whose end is not in the file yet."""
    return session.scalars(
        select(TaskRun)
        .where(TaskRun.session_id == session_id, or_(TaskRun.state.in_(runs.OPEN), TaskRun.projected_at.is_(None)))
        .order_by(TaskRun.due_at)
        .limit(BATCH)
    ).all()


@dataclass(frozen=True)
class Followed:
    """What a look at the agent's acks has led to: what to ring after the commit, and what was written for it."""

    signals: list[Signal]
    wanted: list[Written]

    def mark(self, db: Database) -> None:
        """To be called after the commit of inbound.db."""
        mark(db, self.wanted, now_ms())


def follow(db: Database, settings: Settings, session_id: str, inbound: Inbound, taken: Sequence[Taken]) -> Followed:
    """Record claims and ends, and write the successors, within a transaction of inbound.db that the caller commits."""
    with db.write() as session:
        now = now_ms()
        adopt(session, settings, session_id, inbound, [one.inbound_id for one in taken], now)
        signals = record(session, settings, session_id, taken, now)
        session.flush()
        wanted = _wanted(session, session_id)
    faults.point("schedule.after_follow")
    write(db, inbound, session_id, wanted)
    return Followed(signals, wanted)


def _taken(settings: Settings, folder: SessionFolder, rows: Rows, *, agent_is_dead: bool) -> list[Taken] | None:
    """What the agent has acknowledged of these rows; None while its file is busy."""
    asked = list(rows)
    if not asked or not folder.outbound_db.exists():
        return []
    try:
        with open_outbound(folder, ReadLimits.of(settings), agent_is_dead=agent_is_dead) as outbound:
            acks = outbound.acks(asked)
            reports = outbound.task_reports(list(acks))
    except OutboundBusyError:
        return None
    except HostileFileError as error:
        _log.warning("outbound_unreadable", session=folder.root.name, reason=str(error))
        return []
    return [Taken(one, ack, reports.get(one, TaskReport())) for one, ack in acks.items()]


def _close_what_was_ended_elsewhere(
    session: Session, settings: Settings, session_id: str, rows: Rows, taken: Sequence[Taken], now: int
) -> None:
    """Runs whose row has ended without an ack: the agent died of it too often, or another host completed it."""
    acked = {one.inbound_id for one in taken if one.ended}
    for run in _unfinished(session, session_id):
        row = rows.get(run.inbound_id)
        if row is None or run.state == "ended" or run.inbound_id in acked or row.status in {"pending", "paused"}:
            continue
        if row.status == "failed":
            runs.claim(session, settings, run, TaskReport(), now)
            died = TaskReport(
                outcome="failed", error_class="crash", error=f"The agent died of it {row.tries + 1} times."
            )
            runs.end(session, settings, run, died, now)
        else:
            runs.withdraw(run, "cancelled", "Its row was completed by somebody else.", now)


def _wanted(session: Session, session_id: str) -> list[Written]:
    """What the file is to say of every run that it does not say the right thing of yet."""
    found = session.execute(
        select(TaskRun, TaskSeries)
        .join(TaskSeries, TaskSeries.id == TaskRun.series_id)
        .where(TaskRun.session_id == session_id, TaskRun.projected_at.is_(None))
        .order_by(TaskRun.due_at)
        .limit(BATCH)
    )
    return [wanted_row(run, series) for run, series in found]


def wanted_row(run: TaskRun, series: TaskSeries) -> Written:
    """The row of one run, None where it is not to be taken any more."""
    if run.state not in runs.WAITING:
        return Written(run.id, run.version, run.inbound_id, withdrawn=run.state == "ended")
    row = NewRow(
        id=run.inbound_id,
        kind="task",
        content=dumps({"prompt": series.prompt, "script": series.script}),
        timestamp_ms=now_ms(),
        platform_id=series.platform_id,
        channel_type=series.channel_type,
        thread_id=series.thread_id,
        process_after_ms=run.due_at,
        recurrence=None if series.kind == "once" or run.origin != "schedule" else series.expression,
        series_id=series.id,
    )
    return Written(run.id, run.version, run.inbound_id, row, paused=series.state == "paused")


def write(db: Database, inbound: Inbound, session_id: str, wanted: Collection[Written]) -> None:
    """Write the rows, and say first when the earliest of them is due."""
    inbound.complete([one.inbound_id for one in wanted if one.withdrawn])
    rows = [one.row for one in wanted if one.row is not None]
    if not rows:
        return
    due.announce(db, session_id, min(row.process_after_ms or 0 for row in rows))
    inserted = inbound.insert(rows)
    for one in wanted:
        if one.row is not None and (one.paused or one.inbound_id not in inserted.seqs):
            inbound.revise(
                one.inbound_id,
                content=one.row.content,
                process_after_ms=one.row.process_after_ms or 0,
                recurrence=one.row.recurrence,
                paused=one.paused,
            )


def mark(db: Database, wanted: Collection[Written], now: int, looked: due.DueLook | None = None) -> None:
    """Record that the file says what these runs said when they were read."""
    if not wanted and (looked is None or not looked.differs):
        return
    with db.write() as session:
        for one in wanted:
            session.execute(
                update(TaskRun).where(TaskRun.id == one.run_id, TaskRun.version == one.version).values(projected_at=now)
            )
        if looked is not None:
            looked.set(session.connection())
