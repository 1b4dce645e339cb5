"""Chats (`messaging_groups`) and wirings (`messaging_group_agents`): who listens where, and when it engages."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Flag, Id, Millis, is_flag, one_of
from nanotasks.domain.vocabulary import (
    ENGAGE_MODES,
    IGNORED_POLICIES,
    SENDER_SCOPES,
    SESSION_MODES,
    UNKNOWN_SENDER_POLICIES,
)


class Chat(Base):
    """One conversation place on one platform: (channel_type, platform_id)."""

    __tablename__ = "messaging_groups"
    __table_args__ = (
        UniqueConstraint("channel_type", "platform_id"),
        one_of("unknown_sender_policy", *UNKNOWN_SENDER_POLICIES),
        is_flag("is_group"),
    )

    id: Mapped[Id]
    channel_type: Mapped[str]
    platform_id: Mapped[str]
    name: Mapped[str | None]
    is_group: Mapped[Flag] = mapped_column(default=0, server_default="0")
    unknown_sender_policy: Mapped[str] = mapped_column(default="strict", server_default="strict")
    created_at: Mapped[Millis]
    denied_at: Mapped[Millis | None]


class Wiring(Base):
    """An agent group listens in a chat."""

    __tablename__ = "messaging_group_agents"
    __table_args__ = (
        UniqueConstraint("messaging_group_id", "agent_group_id"),
        one_of("session_mode", *SESSION_MODES),
        one_of("engage_mode", *ENGAGE_MODES),
        one_of("sender_scope", *SENDER_SCOPES),
        one_of("ignored_message_policy", *IGNORED_POLICIES),
    )

    id: Mapped[Id]
    messaging_group_id: Mapped[str] = mapped_column(ForeignKey("messaging_groups.id"))
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"), index=True)
    session_mode: Mapped[str] = mapped_column(default="shared", server_default="shared")
    priority: Mapped[int] = mapped_column(default=0, server_default="0")
    engage_mode: Mapped[str] = mapped_column(default="mention", server_default="mention")
    engage_pattern: Mapped[str | None]
    sender_scope: Mapped[str] = mapped_column(default="all", server_default="all")
    ignored_message_policy: Mapped[str] = mapped_column(default="drop", server_default="drop")
    created_at: Mapped[Millis]
