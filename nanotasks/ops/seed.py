"""The first start: an agent that answers in the terminal, so that there is somebody to talk to."""

from __future__ import annotations

from sqlalchemy import select

from nanotasks.agents.chats import create_chat
from nanotasks.agents.groups import create_group
from nanotasks.agents.wirings import create_wiring
from nanotasks.central import Database
from nanotasks.central.chats import Chat
from nanotasks.central.groups import AgentGroup
from nanotasks.central.users import User, UserRole
from nanotasks.people.admin import create_user, grant_role
from nanotasks.settings import Settings

CHANNEL = "terminal"
CHAT = "local"
OWNER = "terminal:local"


def seed(db: Database, settings: Settings) -> bool:
    """Make the first agent group, wired to the terminal, and its owner; False when there is any group already."""
    with db.write() as session:
        if session.scalars(select(AgentGroup.id).limit(1)).first() is not None:
            return False
        group = create_group(session, settings.assistant_name)
        here = (Chat.channel_type == CHANNEL) & (Chat.platform_id == CHAT)
        chat = session.scalars(select(Chat).where(here)).one_or_none() or create_chat(
            session, CHANNEL, CHAT, name="Terminal", unknown_sender_policy="public"
        )
        create_wiring(session, chat, group, {"engage_mode": "pattern", "engage_pattern": "."})
        owner = session.get(User, OWNER) or create_user(session, OWNER, display_name="You")
        if session.scalars(select(UserRole.id).where(UserRole.role == "owner").limit(1)).first() is None:
            grant_role(session, owner, "owner")
        return True
