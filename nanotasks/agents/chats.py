"""Chats: registered by hand here, or by the first message that mentions the bot (`intake`).

Every function works in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nanotasks.agents import dependants
from nanotasks.agents.sessions import delete_session
from nanotasks.central.chats import Chat
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.domain.vocabulary import UNKNOWN_SENDER_POLICIES
from nanotasks.errors import ConflictError, InvalidError
from nanotasks.ids import new_id

CHANGEABLE = ("name", "is_group", "unknown_sender_policy", "denied_at")


def split_place(text: str) -> tuple[str, str]:
    """`channel:platform_id` as its two parts; the first colon divides. Raises `InvalidError`."""
    channel_type, colon, platform_id = text.partition(":")
    if not (channel_type and colon and platform_id) or channel_type != channel_type.strip():
        raise InvalidError(
            f"{text!r} is not a chat's place.", fix="Write it as channel:platform_id, for example file:family."
        )
    return channel_type, platform_id


def create_chat(
    session: Session,
    channel_type: str,
    platform_id: str,
    *,
    name: str | None = None,
    is_group: bool = False,
    unknown_sender_policy: str = "strict",
) -> Chat:
    """Register a chat. Its platform id must be what the channel reports, byte for byte. Raises `ConflictError`."""
    known = session.scalars(
        select(Chat).where(Chat.channel_type == channel_type, Chat.platform_id == platform_id)
    ).one_or_none()
    if known is not None:
        raise ConflictError(f"The chat {channel_type}:{platform_id} is there already, as {known.id}.")
    _require_policy(unknown_sender_policy)
    chat = Chat(
        id=new_id("mg"),
        channel_type=channel_type,
        platform_id=platform_id,
        name=name,
        is_group=int(is_group),
        unknown_sender_policy=unknown_sender_policy,
        created_at=now_ms(),
    )
    session.add(chat)
    session.flush()
    return chat


def change_chat(session: Session, chat: Chat, changes: Mapping[str, Any]) -> None:
    """Change any of `CHANGEABLE`. A chat with `denied_at` is ignored as long as no agent is wired to it."""
    for field, value in changes.items():
        if field == "unknown_sender_policy":
            _require_policy(value)
        setattr(chat, field, int(value) if field == "is_group" else value)
    session.flush()


def delete_chat(session: Session, chat: Chat, *, cascade: bool = False) -> list[AgentSession]:
    """Delete a chat, with everything that depends on it when `cascade`; else `ConflictError` names what does.

    Returns the sessions that went with it; their folders are the caller's to remove.
    """
    kinds = dependants.of_chat(chat.id)
    if not cascade:
        dependants.require_none(session, f"The chat {chat.channel_type}:{chat.platform_id}", kinds)
    sessions = list(session.scalars(select(AgentSession).where(AgentSession.messaging_group_id == chat.id)))
    for one in sessions:
        delete_session(session, one, cascade=True)
    dependants.remove(session, kinds)
    session.execute(delete(Chat).where(Chat.id == chat.id))
    return sessions


def _require_policy(policy: str) -> None:
    if policy not in UNKNOWN_SENDER_POLICIES:
        raise InvalidError(f"{policy!r} is no policy.", fix=f"Use one of {', '.join(UNKNOWN_SENDER_POLICIES)}.")
