"""Which session a task that an operator makes belongs to: an agent's in a chat, as a message there would find it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.agents.sessions import create_session, place_of
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import UsageError
from nanotasks.intake.placement import place
from nanotasks.ops import references
from nanotasks.settings import settings


def home_of(session: Session, group_text: str | None, chat_text: str | None) -> AgentSession:
    """The active session of an agent in a chat, made where there is none. Raises `UsageError` where several may be."""
    group = _group(session, group_text, chat_text)
    chat = references.chat(session, chat_text) if chat_text else _only_chat(session, group)
    place(session.connection(), [group.id])
    where = place_of(session, settings(), group, chat, None, None)
    found = session.scalars(
        select(AgentSession).where(AgentSession.route_key == where.route_key, AgentSession.status == "active")
    ).one_or_none()
    return found or create_session(session, group, chat, where)


def _group(session: Session, group_text: str | None, chat_text: str | None) -> AgentGroup:
    if group_text:
        return references.group(session, group_text)
    query = select(AgentGroup).order_by(AgentGroup.folder).limit(2)
    if chat_text:
        chat = references.chat(session, chat_text)
        wired = select(Wiring.agent_group_id).where(Wiring.messaging_group_id == chat.id)
        query = query.where(AgentGroup.id.in_(wired))
    found = session.scalars(query).all()
    if len(found) != 1:
        raise UsageError("Say which agent: with --group.", fix="`nanotasks groups list` shows them.")
    return found[0]


def _only_chat(session: Session, group: AgentGroup) -> Chat:
    wired = select(Wiring.messaging_group_id).where(Wiring.agent_group_id == group.id)
    found = session.scalars(select(Chat).where(Chat.id.in_(wired)).order_by(Chat.id).limit(2)).all()
    if len(found) != 1:
        raise UsageError(
            f"Say which chat gets the answers of {group.folder}: with --chat.",
            fix=f"`nanotasks wirings list --group {group.folder}` shows them.",
        )
    return found[0]
