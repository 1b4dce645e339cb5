"""What waits for a person: questions of agents, and approvals of actions, senders and chats."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, one_of

APPROVAL_STATUSES = ("pending", "approved", "rejected", "expired")


class PendingQuestion(Base):
    """A question card of an agent that was not answered yet."""

    __tablename__ = "pending_questions"

    question_id: Mapped[Id]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    message_out_id: Mapped[str]
    platform_id: Mapped[str | None]
    channel_type: Mapped[str | None]
    thread_id: Mapped[str | None]
    title: Mapped[str]
    options_json: Mapped[str]
    created_at: Mapped[Millis]


class PendingApproval(Base):
    """An action of an agent that somebody entitled has to allow."""

    __tablename__ = "pending_approvals"
    __table_args__ = (
        one_of("status", *APPROVAL_STATUSES),
        Index("ix_pending_approvals_action_status", "action", "status"),
    )

    approval_id: Mapped[Id]
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id"))
    request_id: Mapped[str | None]
    action: Mapped[str]
    payload: Mapped[str]
    created_at: Mapped[Millis]
    agent_group_id: Mapped[str | None] = mapped_column(ForeignKey("agent_groups.id"))
    channel_type: Mapped[str | None]
    platform_id: Mapped[str | None]
    platform_message_id: Mapped[str | None]
    expires_at: Mapped[Millis | None]
    status: Mapped[str] = mapped_column(default="pending", server_default="pending")
    title: Mapped[str] = mapped_column(default="", server_default="")
    options_json: Mapped[str] = mapped_column(default="[]", server_default="[]")


class PendingSenderApproval(Base):
    """An unknown sender in a chat that asks for approval."""

    __tablename__ = "pending_sender_approvals"
    __table_args__ = (UniqueConstraint("messaging_group_id", "sender_identity"),)

    id: Mapped[Id]
    messaging_group_id: Mapped[str] = mapped_column(ForeignKey("messaging_groups.id"), index=True)
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    sender_identity: Mapped[str]
    sender_name: Mapped[str | None]
    original_message: Mapped[str]
    approver_user_id: Mapped[str]
    created_at: Mapped[Millis]
    title: Mapped[str] = mapped_column(default="", server_default="")
    options_json: Mapped[str] = mapped_column(default="[]", server_default="[]")


class PendingChannelApproval(Base):
    """A chat that mentioned the bot and is wired to nobody."""

    __tablename__ = "pending_channel_approvals"

    messaging_group_id: Mapped[str] = mapped_column(ForeignKey("messaging_groups.id"), primary_key=True)
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    original_message: Mapped[str]
    approver_user_id: Mapped[str]
    created_at: Mapped[Millis]
    title: Mapped[str] = mapped_column(default="", server_default="")
    options_json: Mapped[str] = mapped_column(default="[]", server_default="[]")
