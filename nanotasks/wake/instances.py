"""The rows that record every start of an agent, and what its session says about it.

A row without an end is the live one of its session; a unique index allows one. It is written before the agent is
started, so that no agent runs unrecorded, and ended when the runtime says that nothing runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, bindparam, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nanotasks.agents.moving import is_gone, lock_host
from nanotasks.central import Database
from nanotasks.central.base import table_of
from nanotasks.central.events import InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.errors import ConflictError
from nanotasks.runtimes.contract import Running
from nanotasks.wake.here import Here

_route = table_of(InboundRoute).c
_ENDED = select(_route.inbound_id).where(
    _route.session_id == bindparam("of_session"),
    _route.inbound_id.in_(bindparam("open_ids", expanding=True)),
    _route.state.in_(("answered", "completed", "dead")),
)


@dataclass(frozen=True)
class SessionFacts:
    """A session, where its agent group lives, and its live instance as the database records it.

    `live_host_gone`: that instance was on another host, which is gone, and it stopped itself.
    """

    agent_session: AgentSession
    host_id: str | None
    live: Instance | None
    live_host_gone: bool = False

    @property
    def active(self) -> bool:
        return self.agent_session.status == "active"

    def is_due(self, at_ms: int) -> bool:
        """Whether it has due work and may be started: it is active and no failed start holds it back."""
        due_ms, retry_ms = self.agent_session.next_due_at, self.agent_session.wake_retry_at
        return self.active and due_ms is not None and due_ms <= at_ms and (retry_ms is None or retry_ms <= at_ms)


def live_of(session_id: str) -> ColumnElement[bool]:
    """The condition for a session's live instance."""
    return (Instance.session_id == session_id) & Instance.ended_at.is_(None)


def read(here: Here, session_id: str) -> SessionFacts | None:
    """What is recorded about a session; None when there is no such session."""
    with here.db.read() as session:
        found = session.execute(
            select(AgentSession, AgentGroup.host_id, Instance)
            .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
            .outerjoin(Instance, (Instance.session_id == AgentSession.id) & Instance.ended_at.is_(None))
            .where(AgentSession.id == session_id)
        ).one_or_none()
        if found is None:
            return None
        facts = SessionFacts(*found)
        if facts.live is None or facts.live.host_id == facts.host_id:
            return facts
        # Rare: its group has moved.
        host = session.get_one(Host, facts.live.host_id)
        gone = bool(facts.live.fenced) and is_gone(host, here.db.now_ms(session), here.settings)
        return replace(facts, live_host_gone=gone)


def ended_elsewhere(db: Database, session_id: str, inbound_ids: Collection[str]) -> list[str]:
    """Those of these inbound rows whose message has ended: nobody waits for an answer to it any more."""
    if not inbound_ids:
        return []
    with db.read_core() as connection:
        found = connection.execute(_ENDED, {"of_session": session_id, "open_ids": list(inbound_ids)})
        return list(found.scalars())


def live_on(db: Database, host_id: str) -> list[Instance]:
    """The live instances of a host, oldest first."""
    with db.read() as session:
        mine = select(Instance).where(Instance.host_id == host_id, Instance.ended_at.is_(None))
        return list(session.scalars(mine.order_by(Instance.started_at)))


def by_id(db: Database, instance_id: str) -> Instance | None:
    """One instance."""
    with db.read() as session:
        return session.get(Instance, instance_id)


class GroupMovedError(ConflictError):
    """The agent group lives on another host."""


def enter(here: Here, facts: SessionFacts, instance_id: str, epoch: int, *, fenced: bool = False) -> bool:
    """Record a start that is about to happen; False when this host runs as many agents as it may.

    The host's row is locked for the count, so that two starts cannot both take the last place, and the group cannot
    move away meanwhile. `fenced`: the agent will stop itself when nothing is heard of this host. Raises
    `IntegrityError` when the session has a live instance already, `GroupMovedError` when its group has moved.
    """
    group_id = facts.agent_session.agent_group_id
    with here.db.write() as session:
        lock_host(session, here.host_id)
        if session.scalar(select(AgentGroup.host_id).where(AgentGroup.id == group_id)) != here.host_id:
            raise GroupMovedError(f"The agent group {group_id} does not live on {here.host_id} any more.")
        if _count(session, here.host_id) >= here.settings.max_containers:
            return False
        session.add(
            Instance(
                id=instance_id,
                session_id=facts.agent_session.id,
                agent_group_id=group_id,
                host_id=here.host_id,
                runtime=here.runtime.name,
                epoch=epoch,
                fenced=int(fenced),
                isolated=int(here.runtime.isolates),
                started_at=now_ms(),
            )
        )
    return True


def _count(session: Session, host_id: str) -> int:
    mine = select(func.count()).select_from(Instance).where(Instance.host_id == host_id, Instance.ended_at.is_(None))
    return session.execute(mine).scalar_one()


def is_full(here: Here) -> bool:
    """Whether this host runs as many agents as it may."""
    with here.db.read() as session:
        return _count(session, here.host_id) >= here.settings.max_containers


def started(db: Database, running: Running) -> None:
    """Record that an entered instance runs; an earlier trouble with starting is over unless it comes back."""
    with db.write() as session:
        session.execute(
            update(Instance)
            .where(Instance.id == running.instance_id)
            .values(
                runtime_id=running.runtime_id,
                pid=running.pid,
                running_at=func.coalesce(Instance.running_at, now_ms()),
            )
        )
        session.execute(
            update(AgentSession)
            .where(AgentSession.id == running.session_id)
            .values(container_status="running", last_active=now_ms(), wake_retry_at=None)
        )


def adopt(here: Here, facts: SessionFacts, running: Running, runtime_name: str, isolates: bool) -> bool:
    """Record an agent that runs and is not recorded, or was recorded as ended; False when another is recorded live."""
    recorded = {
        "runtime": runtime_name,
        "runtime_id": running.runtime_id,
        "pid": running.pid,
        "epoch": running.epoch,
        "isolated": int(isolates),
        "started_at": running.started_ms,
        "ended_at": None,
        "end_reason": None,
        "exit_code": None,
    }
    try:
        with here.db.write() as session:
            known = session.get(Instance, running.instance_id)
            if known is None:
                known = Instance(
                    id=running.instance_id,
                    session_id=running.session_id,
                    agent_group_id=facts.agent_session.agent_group_id,
                    host_id=here.host_id,
                )
                session.add(known)
            for column, value in recorded.items():
                setattr(known, column, value)
            session.execute(
                update(AgentSession).where(AgentSession.id == running.session_id).values(container_status="running")
            )
    except IntegrityError:
        return False
    return True


def note_exit(db: Database, instance_id: str, code: int | None, reason: str) -> None:
    """Keep how an instance ends on its live row, for whoever ends the row; the first reason stays."""
    known = {} if code is None else {"exit_code": code}
    with db.write() as session:
        session.execute(
            update(Instance)
            .where(Instance.id == instance_id, Instance.ended_at.is_(None))
            .values(end_reason=func.coalesce(Instance.end_reason, reason), **known)
        )


def end(db: Database, instance: Instance, reason: str) -> None:
    """End the row of an instance that runs no more; a reason that was noted before stays."""
    with db.write() as session:
        session.execute(
            update(Instance)
            .where(Instance.id == instance.id, Instance.ended_at.is_(None))
            .values(ended_at=now_ms(), end_reason=func.coalesce(Instance.end_reason, reason))
        )
        session.execute(
            update(AgentSession)
            .where(AgentSession.id == instance.session_id)
            .values(container_status="stopped", last_active=now_ms())
        )


def mark_reset(db: Database, instance_id: str) -> None:
    """Remember that the rows this instance had claimed were put off."""
    with db.write() as session:
        session.execute(update(Instance).where(Instance.id == instance_id).values(reset_at=now_ms()))


def show_trouble(db: Database, session_id: str, reason: str) -> None:
    """Show why a session that is due has no agent yet, or why its agent is not heard."""
    with db.write() as session:
        session.execute(update(AgentSession).where(AgentSession.id == session_id).values(wake_error=reason))


def start_proved(db: Database, session_ids: Collection[str]) -> None:
    """The agents of these sessions live, or nothing is due for them: forget earlier failures."""
    troubled = (
        AgentSession.id.in_(session_ids),
        or_(AgentSession.wake_failures > 0, AgentSession.wake_error.is_not(None)),
    )
    with db.read() as session:
        found = session.scalars(select(AgentSession.id).where(*troubled)).all()
    if found:
        with db.write() as session:
            session.execute(
                update(AgentSession)
                .where(AgentSession.id.in_(found))
                .values(wake_failures=0, wake_retry_at=None, wake_error=None)
            )


def withdraw(db: Database, instance_id: str) -> None:
    """Take back a row whose agent was never started, because another one runs."""
    with db.write() as session:
        session.execute(delete(Instance).where(Instance.id == instance_id))


def waiting_sessions(here: Here, limit: int) -> list[str]:
    """Sessions of this host that are due and have no agent, the longest waiting first."""
    now = now_ms()
    with here.db.read() as session:
        return list(
            session.scalars(
                select(AgentSession.id)
                .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
                .outerjoin(Instance, (Instance.session_id == AgentSession.id) & Instance.ended_at.is_(None))
                .where(
                    AgentGroup.host_id == here.host_id,
                    AgentSession.status == "active",
                    AgentSession.next_due_at <= now,
                    or_(AgentSession.wake_retry_at.is_(None), AgentSession.wake_retry_at <= now),
                    Instance.id.is_(None),
                )
                .order_by(AgentSession.next_due_at)
                .limit(limit)
            )
        )


def left_by_others(here: Here) -> list[str]:
    """Sessions of groups that live here, with a live instance on another host, which has to end it or is gone."""
    with here.db.read() as session:
        left = (
            select(Instance.session_id)
            .join(AgentGroup, AgentGroup.id == Instance.agent_group_id)
            .where(AgentGroup.host_id == here.host_id, Instance.ended_at.is_(None), Instance.host_id != here.host_id)
        )
        return list(session.scalars(left))


def unwanted_on(here: Here) -> list[str]:
    """Sessions with a live instance on this host that should have none: closed, or their group lives elsewhere."""
    with here.db.read() as session:
        return list(
            session.scalars(
                select(Instance.session_id)
                .join(AgentSession, AgentSession.id == Instance.session_id)
                .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
                .where(
                    Instance.host_id == here.host_id,
                    Instance.ended_at.is_(None),
                    or_(AgentSession.status != "active", AgentGroup.host_id.is_distinct_from(here.host_id)),
                )
            )
        )
