"""Sessions: (agent group, chat, thread), each a folder on the host of its agent group."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, one_of
from nanotasks.domain.vocabulary import SESSION_STATUSES

CONTAINER_STATUSES = ("running", "idle", "stopped")


class AgentSession(Base):
    """One conversation of one agent.

    `route_key` makes two creators end with one session. `next_due_at` is when its earliest due row is due, and
    never later than that: it is lowered before a row is written, and raised only by compare-and-set on
    `due_version`, which every lowering bumps, after the file was read again. `outbound_mark` is the rowid of the
    last outbound row that stands in the delivery ledger, `outbound_mark_id` its message id: another id there means
    that the file was replaced.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        one_of("status", *SESSION_STATUSES),
        one_of("container_status", *CONTAINER_STATUSES),
        Index("ix_sessions_messaging_group_id_thread_id", "messaging_group_id", "thread_id"),
        Index(
            "uq_sessions_route_key",
            "route_key",
            unique=True,
            sqlite_where=text("status = 'active'"),
            postgresql_where=text("status = 'active'"),
        ),
        Index("ix_sessions_next_due_at", "next_due_at"),
    )

    id: Mapped[Id]
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"), index=True)
    messaging_group_id: Mapped[str | None] = mapped_column(ForeignKey("messaging_groups.id"))
    thread_id: Mapped[str | None]
    route_key: Mapped[str]
    agent_provider: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="active", server_default="active")
    container_status: Mapped[str] = mapped_column(default="stopped", server_default="stopped")
    last_active: Mapped[Millis | None]
    created_at: Mapped[Millis]
    next_due_at: Mapped[Millis | None]
    due_version: Mapped[int] = mapped_column(default=0, server_default="0")
    signalled_at: Mapped[Millis | None]
    outbound_mark: Mapped[Millis] = mapped_column(default=0, server_default="0")
    outbound_mark_id: Mapped[str | None]
    append_error: Mapped[str | None]
    wake_failures: Mapped[int] = mapped_column(default=0, server_default="0")
    wake_retry_at: Mapped[Millis | None]
    wake_error: Mapped[str | None]


class ThreadEngagement(Base):
    """An agent that was addressed in a thread by `mention-sticky` and therefore stays in it."""

    __tablename__ = "thread_engagements"

    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True)
    messaging_group_id: Mapped[str] = mapped_column(
        ForeignKey("messaging_groups.id", ondelete="CASCADE"), primary_key=True
    )
    thread_id: Mapped[str] = mapped_column(primary_key=True)
    engaged_at: Mapped[Millis]
