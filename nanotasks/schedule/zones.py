"""Whose clock a schedule goes by: the user's, else the agent group's, else the installation's."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from nanotasks.central.chats import Chat
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import User, UserDm
from nanotasks.settings import Settings


def zone_of(session: Session, settings: Settings, agent_session: AgentSession) -> str:
    """The IANA zone of a session. A user is known by their direct chat only: a group has many."""
    chat = session.get(Chat, agent_session.messaging_group_id) if agent_session.messaging_group_id else None
    group = session.get(AgentGroup, agent_session.agent_group_id)
    return (_of_user(session, chat) if chat else None) or (group.timezone if group else None) or settings.timezone


def _of_user(session: Session, chat: Chat) -> str | None:
    by_address = User.id == f"{chat.channel_type}:{chat.platform_id}"
    by_dm = User.id.in_(select(UserDm.user_id).where(UserDm.messaging_group_id == chat.id))
    return session.scalars(
        select(User.timezone).where(or_(by_address, by_dm), User.timezone.is_not(None)).order_by(User.id).limit(1)
    ).first()
