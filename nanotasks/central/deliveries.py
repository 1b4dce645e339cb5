"""The delivery ledger: one row per outbound row, one row per attempt.

    pending ──claim──▶ sending ──▶ delivered
       ▲                  │ ├────▶ retrying ──(due)──▶ sending
       │                  │ ├────▶ parked    (held its lane too long; tried again, out of order)
       │                  │ ├────▶ held      (outcome unknown, and the channel says: do not send twice)
       └── a new row      └─└────▶ dead      (given up; the agent was told)

At most one row of a lane is `sending`; the database enforces it.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, RowNumber, one_of
from nanotasks.domain.vocabulary import DELIVERY_STATES, ERROR_CLASSES

OPEN_STATES = ("pending", "sending", "retrying", "parked")
OUTCOMES = ("delivered", *ERROR_CLASSES)


class Delivery(Base):
    """One outbound row on its way to a destination. `lane` is `<session>|<channel_type>|<platform_id>`."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("session_id", "message_out_id"),
        one_of("state", *DELIVERY_STATES),
        Index(
            "uq_deliveries_lane_sending",
            "lane",
            unique=True,
            sqlite_where=text("state = 'sending'"),
            postgresql_where=text("state = 'sending'"),
        ),
        Index(
            "ix_deliveries_lane_open",
            "lane",
            "seq",
            sqlite_where=text("state IN ('pending', 'sending', 'retrying', 'parked')"),
            postgresql_where=text("state IN ('pending', 'sending', 'retrying', 'parked')"),
        ),
        Index(
            "ix_deliveries_due",
            "next_attempt_at",
            sqlite_where=text("state IN ('pending', 'sending', 'retrying', 'parked')"),
            postgresql_where=text("state IN ('pending', 'sending', 'retrying', 'parked')"),
        ),
        Index(
            "ix_deliveries_unprojected",
            "session_id",
            sqlite_where=text("projected_at IS NULL AND state IN ('delivered', 'dead')"),
            postgresql_where=text("projected_at IS NULL AND state IN ('delivered', 'dead')"),
        ),
        Index(
            "ix_deliveries_session_pending",
            "session_id",
            "lane",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_deliveries_session_id_in_reply_to", "session_id", "in_reply_to"),
        Index("ix_deliveries_state_created_at", "state", "created_at"),
        Index("ix_deliveries_created_at", "created_at"),
        Index(
            "ix_deliveries_finished_at",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    host_id: Mapped[str | None]
    message_out_id: Mapped[str]
    seq: Mapped[Millis]
    lane: Mapped[str]
    kind: Mapped[str]
    channel_type: Mapped[str | None]
    platform_id: Mapped[str | None]
    thread_id: Mapped[str | None]
    in_reply_to: Mapped[str | None]
    content: Mapped[str]
    state: Mapped[str] = mapped_column(default="pending", server_default="pending")
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[Millis | None]
    first_attempt_at: Mapped[Millis | None]
    send_started_at: Mapped[Millis | None]
    sending_owner: Mapped[str | None]
    signalled_at: Mapped[Millis | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    platform_message_id: Mapped[str | None]
    created_at: Mapped[Millis]
    finished_at: Mapped[Millis | None]
    projected_at: Mapped[Millis | None]


class DeliveryAttempt(Base):
    """One try at a delivery."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        UniqueConstraint("delivery_id", "number"),
        one_of("outcome", *OUTCOMES),
        Index("ix_delivery_attempts_started_at", "started_at"),
        Index(
            "ix_delivery_attempts_finished_at",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[RowNumber]
    delivery_id: Mapped[str] = mapped_column(ForeignKey("deliveries.id", ondelete="CASCADE"))
    number: Mapped[int]
    started_at: Mapped[Millis]
    finished_at: Mapped[Millis | None]
    outcome: Mapped[str | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    worker: Mapped[str]
    task_id: Mapped[str | None]


class MailboxItem(Base):
    """What was sent on a channel without a stateless way to send; its gateway drains it.

    `delivery_id` is unique: sending the same delivery twice is one item.
    """

    __tablename__ = "mailbox_items"
    __table_args__ = (
        UniqueConstraint("delivery_id"),
        Index(
            "ix_mailbox_items_unshown",
            "channel_type",
            "platform_id",
            "id",
            sqlite_where=text("shown_at IS NULL"),
            postgresql_where=text("shown_at IS NULL"),
        ),
    )

    id: Mapped[RowNumber]
    channel_type: Mapped[str]
    platform_id: Mapped[str]
    thread_id: Mapped[str | None]
    delivery_id: Mapped[str]
    kind: Mapped[str]
    content: Mapped[str]
    files: Mapped[str] = mapped_column(default="[]", server_default="[]")
    created_at: Mapped[Millis]
    shown_at: Mapped[Millis | None]
