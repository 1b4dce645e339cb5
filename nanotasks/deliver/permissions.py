"""Who may send where: into a session's own chat, and where a destination of its agent group leads (NanoClaw 2)."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, exists, select

from nanotasks.central.base import table_of
from nanotasks.central.chats import Chat
from nanotasks.central.destinations import Destination
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import PermanentError

_chats, _sessions, _destinations = table_of(Chat).c, table_of(AgentSession).c, table_of(Destination).c
_CHAT = select(
    _chats.id,
    exists()
    .where(
        _destinations.agent_group_id == bindparam("of_agent"),
        _destinations.target_type == "channel",
        _destinations.target_id == _chats.id,
    )
    .label("is_destination"),
).where(_chats.channel_type == bindparam("channel_type"), _chats.platform_id == bindparam("platform_id"))
_AGENT = select(
    exists().where(
        _destinations.agent_group_id == bindparam("of_agent"),
        _destinations.target_type == "agent",
        _destinations.target_id == bindparam("target"),
    )
)


class UnauthorizedDestinationError(PermanentError):
    """The agent has no permission to send there (unauthorized)."""


def check_chat(connection: Connection, agent_group_id: str, channel_type: str, platform_id: str) -> None:
    """Whether an agent may send into a chat that is not its session's own.

    Raises `PermanentError` if there is no such chat, and `UnauthorizedDestinationError` if it is no destination.
    """
    chat = {"channel_type": channel_type, "platform_id": platform_id, "of_agent": agent_group_id}
    found = connection.execute(_CHAT, chat).one_or_none()
    if found is None:
        raise PermanentError(f"There is no chat {platform_id} on {channel_type}.")
    if not found.is_destination:
        raise UnauthorizedDestinationError(
            f"This agent may not send to {platform_id} on {channel_type} (unauthorized).",
            fix="Only your own chat and your destinations can be reached.",
        )


def check_agent(connection: Connection, agent_group_id: str, target_id: str) -> None:
    """Raise `UnauthorizedDestinationError` unless the target is the agent's own group or one of its destinations."""
    allowed = connection.execute(_AGENT, {"of_agent": agent_group_id, "target": target_id}).scalar_one()
    if target_id != agent_group_id and not allowed:
        raise UnauthorizedDestinationError(
            f"This agent may not send to the agent {target_id} (unauthorized).",
            fix="Only yourself and your destinations can be reached.",
        )
