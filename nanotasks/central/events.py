"""The intake log: accepted events, their attachments, and the routes from an event to sessions.

An event is `pending` until it was routed; then `routed`, `dropped` (a row in `drops` says why) or `dead`.
A route is `pending` until its row stands in the session's inbound.db, then `appended` (trigger 1) or `context`
(trigger 0, an end state); the agent's acknowledgement makes it `completed`, or `answered` when a reply to it
was delivered; a row that failed for good makes it `dead`.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Flag, Id, Millis, RowNumber, is_flag, one_of
from nanotasks.domain.vocabulary import EVENT_STATES

ROUTE_STATES = ("pending", "appended", "context", "completed", "answered", "dead")


class ChatCounter(Base):
    """Accept order of one chat, and the row that routing locks; it exists before the chat is registered."""

    __tablename__ = "chat_counters"

    channel_type: Mapped[str] = mapped_column(primary_key=True)
    platform_id: Mapped[str] = mapped_column(primary_key=True)
    last_order: Mapped[Millis] = mapped_column(default=0, server_default="0")
    signalled_at: Mapped[Millis | None]


class InboundEvent(Base):
    """One accepted platform message, before routing."""

    __tablename__ = "inbound_events"
    __table_args__ = (
        UniqueConstraint(
            "channel_type", "platform_id", "platform_message_id", "digest", name="uq_inbound_events_identity"
        ),
        one_of("state", *EVENT_STATES),
        is_flag("is_mention"),
        Index(
            "ix_inbound_events_pending",
            "channel_type",
            "platform_id",
            "accept_order",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_inbound_events_next_try_at",
            "next_try_at",
            sqlite_where=text("state = 'pending' AND next_try_at IS NOT NULL"),
            postgresql_where=text("state = 'pending' AND next_try_at IS NOT NULL"),
        ),
        Index(
            "ix_inbound_events_oldest",
            "received_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_inbound_events_received_at", "received_at"),
        Index(
            "ix_inbound_events_dead",
            "received_at",
            sqlite_where=text("state = 'dead'"),
            postgresql_where=text("state = 'dead'"),
        ),
    )

    id: Mapped[Id]
    channel_type: Mapped[str]
    platform_id: Mapped[str]
    thread_id: Mapped[str | None]
    platform_message_id: Mapped[str]
    digest: Mapped[str]
    accept_order: Mapped[Millis]
    kind: Mapped[str]
    timestamp: Mapped[str]
    content: Mapped[str]
    is_mention: Mapped[Flag] = mapped_column(default=0, server_default="0")
    is_group: Mapped[int | None]
    reply_to: Mapped[str | None]
    received_at: Mapped[Millis]
    state: Mapped[str] = mapped_column(default="pending", server_default="pending")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    first_failed_at: Mapped[Millis | None]
    next_try_at: Mapped[Millis | None]
    error: Mapped[str | None]
    routed_at: Mapped[Millis | None]


class InboundRoute(Base):
    """One event on its way to one session; `id` is route order."""

    __tablename__ = "inbound_routes"
    __table_args__ = (
        UniqueConstraint("event_id", "session_id"),
        one_of("state", *ROUTE_STATES),
        is_flag("trigger"),
        Index(
            "ix_inbound_routes_unappended",
            "session_id",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_inbound_routes_unfinished",
            "session_id",
            sqlite_where=text("state = 'appended'"),
            postgresql_where=text("state = 'appended'"),
        ),
        Index("ix_inbound_routes_session_id_inbound_id", "session_id", "inbound_id"),
        Index(
            "ix_inbound_routes_dead",
            "finished_at",
            sqlite_where=text("state = 'dead'"),
            postgresql_where=text("state = 'dead'"),
        ),
        Index("ix_inbound_routes_created_at", "created_at"),
        Index(
            "ix_inbound_routes_appended_at",
            "appended_at",
            sqlite_where=text("appended_at IS NOT NULL"),
            postgresql_where=text("appended_at IS NOT NULL"),
        ),
        Index(
            "ix_inbound_routes_finished_at",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[RowNumber]
    event_id: Mapped[str] = mapped_column(ForeignKey("inbound_events.id"))
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    trigger: Mapped[Flag]
    inbound_id: Mapped[str]
    reply_channel_type: Mapped[str | None]
    reply_platform_id: Mapped[str | None]
    reply_thread_id: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="pending", server_default="pending")
    created_at: Mapped[Millis]
    signalled_at: Mapped[Millis | None]
    appended_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]
    error: Mapped[str | None]


class MediaBlob(Base):
    """Bytes of an attachment on their way into a session folder, or of a file between hosts."""

    __tablename__ = "media_blobs"

    id: Mapped[Id]
    event_id: Mapped[str | None] = mapped_column(ForeignKey("inbound_events.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(default=0, server_default="0")
    name: Mapped[str | None]
    content_type: Mapped[str | None]
    size_bytes: Mapped[Millis]
    data: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[Millis]


class Drop(Base):
    """A message that was not accepted or not engaged: one row per event, with the first, most specific reason."""

    __tablename__ = "drops"
    __table_args__ = (UniqueConstraint("event_id"),)

    id: Mapped[Id]
    event_id: Mapped[str | None] = mapped_column(ForeignKey("inbound_events.id"))
    channel_type: Mapped[str]
    platform_id: Mapped[str]
    thread_id: Mapped[str | None]
    user_id: Mapped[str | None]
    sender_name: Mapped[str | None]
    reason: Mapped[str]
    messaging_group_id: Mapped[str | None]
    agent_group_id: Mapped[str | None]
    created_at: Mapped[Millis] = mapped_column(index=True)
