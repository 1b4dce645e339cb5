"""Destinations: the names under which an agent reaches chats and other agents. A row is the permission to send."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Millis, one_of

TARGET_TYPES = ("channel", "agent")


class Destination(Base):
    """`target_id` is a chat's or an agent group's id, by `target_type`."""

    __tablename__ = "agent_destinations"
    __table_args__ = (
        one_of("target_type", *TARGET_TYPES),
        Index("ix_agent_destinations_target_type_target_id", "target_type", "target_id"),
    )

    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"), primary_key=True)
    local_name: Mapped[str] = mapped_column(primary_key=True)
    target_type: Mapped[str]
    target_id: Mapped[str]
    created_at: Mapped[Millis]
