"""Finds what agents wrote and nobody took over: the net below the watcher, and below the last drain of a dead agent.

The signal of a commit may be lost, or be answered while outbound.db was locked. Then rows stand behind the session's
mark, or an ack beside a row that is still open, and nothing else would look before the agent writes again. Agents
that live are asked, and those that ended lately; each costs one look into its outbound.db. Where an agent's file is
not one that can be read, that stands on the session: its chat may wait for an answer that is in there.

A session may also count as due although its file says otherwise: what is done is settled there first and in the central
database afterwards, and whoever did it may have died in between. No wake corrects that while the agent lives, so it is
corrected here; else the session would be signalled for ever, and its agent never be called idle.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from nanotasks import logs
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.errors import HostileFileError, NanotasksError
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.wake import due, instances
from nanotasks.wake.bury import ACKED
from nanotasks.wake.here import Here

log = logs.get(__name__)

# Longer than it takes from the last moment of a host to the first sweep of the one that took its groups over.
MOVED_LATELY_MS = 600_000


def unheard(here: Here, since_ms: int) -> Iterator[str]:
    """The sessions whose agents live on this host, or ended since then, and left something to deliver or to settle.

    Of groups that moved here also those whose agents ended elsewhere: their host may have died before it had a look.
    """
    ended_here = Instance.host_id == here.host_id, or_(Instance.ended_at.is_(None), Instance.ended_at >= since_ms)
    with here.db.read() as session:
        found = _homed(session, here, *ended_here)
        if here.settings.storage == "shared":
            before_the_move = Instance.ended_at >= since_ms - MOVED_LATELY_MS
            found |= _homed(session, here, Instance.host_id != here.host_id, before_the_move)
    return (one.id for one in found.values() if _is_unheard(here, one))


def _homed(session: Session, here: Here, *conditions: ColumnElement[bool]) -> dict[str, AgentSession]:
    """The sessions of groups that live here, with such instances."""
    sessions = (
        select(AgentSession)
        .join(Instance, Instance.session_id == AgentSession.id)
        .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
        .where(AgentGroup.host_id == here.host_id, *conditions)
    )
    return {one.id: one for one in session.scalars(sessions)}


def _is_unheard(here: Here, session: AgentSession) -> bool:
    folder = SessionFolder.of(here.settings.files_dir, session.agent_group_id, session.id)
    open_ids: list[str] = []
    try:
        if session.next_due_at is not None and session.next_due_at <= now_ms():
            with open_inbound(folder) as inbound:
                open_ids = inbound.open_ids()
                if not inbound.count_due():
                    due.recompute(here.db, inbound, session.id)
        dead = session.container_status == "stopped"
        with open_outbound(folder, ReadLimits.of(here.settings), agent_is_dead=dead) as outbound:
            acks = outbound.acks(open_ids).values()
            return outbound.max_rowid() != session.outbound_mark or not ACKED.isdisjoint(acks)
    except HostileFileError as error:
        log.warning("outbound_unreadable", session=session.id, error=str(error))
        if session.wake_error is None:
            instances.show_trouble(here.db, session.id, str(error))
        return False
    except (NanotasksError, OSError):
        return False  # a later pass asks again
