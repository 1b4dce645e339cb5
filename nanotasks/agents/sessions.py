"""Sessions by an operator's hand: made, closed, opened again, or deleted with their history.

Every function works in the caller's transaction; the folder of a deleted session is the caller's to remove,
once the transaction is committed.
"""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nanotasks.agents import dependants
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.channels import registry
from nanotasks.clock import now_ms
from nanotasks.domain.sessions import SessionPlace, effective_mode, session_place
from nanotasks.domain.vocabulary import SESSION_STATUSES
from nanotasks.errors import ConflictError, InvalidError
from nanotasks.ids import new_id
from nanotasks.intake.closed import end_unfinished
from nanotasks.settings import Settings


def place_of(
    session: Session, settings: Settings, group: AgentGroup, chat: Chat | None, thread: str | None, mode: str | None
) -> SessionPlace:
    """Which session of an agent is meant by a chat and a thread, as routing would decide it."""
    if chat is None:
        return session_place("agent-shared", group.id, None, None)
    if mode is None:
        wired = session.scalars(
            select(Wiring.session_mode).where(Wiring.messaging_group_id == chat.id, Wiring.agent_group_id == group.id)
        ).one_or_none()
        known = registry.capabilities(chat.channel_type, settings)
        threads = known.supports_threads if known is not None else None
        mode = effective_mode(wired or "shared", supports_threads=threads, is_group=bool(chat.is_group))
    return session_place(mode, group.id, chat.id, thread)


def create_session(session: Session, group: AgentGroup, chat: Chat | None, place: SessionPlace) -> AgentSession:
    """Make the session of a place before a message does. Raises `ConflictError` when there is an active one.

    Its files come to be on the host of its agent group when the first row is written or the agent is woken.
    """
    other = _active_at(session, place.route_key)
    if other is not None:
        raise ConflictError(
            f"There is an active session for this already: {other}.",
            fix=f"Close it first: `nanotasks sessions update {other} --status closed`.",
        )
    made = AgentSession(
        id=new_id("sess"),
        agent_group_id=group.id,
        messaging_group_id=chat.id if chat is not None else None,
        thread_id=place.thread_id,
        route_key=place.route_key,
        created_at=now_ms(),
    )
    session.add(made)
    session.flush()
    return made


def set_status(session: Session, agent_session: AgentSession, status: str) -> None:
    """Close a session, or open it again. The next message for a closed one begins a new session.

    What a closed one has not answered ends, and its chat is told: ring `deliver` for it after the commit.

    Raises `ConflictError` when another session has taken its place meanwhile.
    """
    if status not in SESSION_STATUSES:
        raise InvalidError(f"{status!r} is no status.", fix=f"Use one of {', '.join(SESSION_STATUSES)}.")
    if status == "active" and agent_session.status != "active":
        other = _active_at(session, agent_session.route_key)
        if other is not None:
            raise ConflictError(
                f"The session {agent_session.id} cannot be opened again.",
                why=f"{other} has taken its place.",
                fix=f"Close that one first: `nanotasks sessions update {other} --status closed`.",
            )
    if status == "closed":
        # Before the session's own row: appending locks them in this order too.
        end_unfinished(session, agent_session.id)
    agent_session.status = status
    if status == "active":
        # Whoever opens it, or says that it is open, wants it tried now.
        agent_session.wake_retry_at = None
    session.flush()


def _active_at(session: Session, route_key: str) -> str | None:
    return session.scalars(
        select(AgentSession.id).where(AgentSession.route_key == route_key, AgentSession.status == "active")
    ).first()


def delete_session(session: Session, agent_session: AgentSession, *, cascade: bool = False) -> None:
    """Delete a session; with `cascade` its routes, deliveries and instances too, else `ConflictError` names them.

    Raises `ConflictError` while its agent runs.
    """
    live = session.scalars(
        select(Instance).where(Instance.session_id == agent_session.id, Instance.ended_at.is_(None))
    ).first()
    if live is not None:
        raise ConflictError(
            f"The agent of the session {agent_session.id} is running on {live.host_id}.",
            fix=f"Stop it first: `nanotasks sessions update {agent_session.id} --status closed`.",
        )
    kinds = dependants.of_session(agent_session.id)
    if not cascade:
        dependants.require_none(session, f"The session {agent_session.id}", kinds)
    dependants.remove(session, kinds)
    session.execute(delete(AgentSession).where(AgentSession.id == agent_session.id))
