"""Changes of state that leave no other row with their time: they are written down when they happen.

Only what is rare belongs here (a lease that changes hands, a host that comes or goes, a message that could not be
routed); what happens to every message is read from the rows themselves (`watch.events`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Index, insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from nanotasks.central.base import Base, Millis, RowNumber, table_of
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps


class StateChange(Base):
    """One change: `name` is the event's, `subject` what changed, `detail` a JSON object of its other fields."""

    __tablename__ = "state_changes"
    __table_args__ = (Index("ix_state_changes_at", "at"),)

    id: Mapped[RowNumber]
    at: Mapped[Millis]
    name: Mapped[str]
    subject: Mapped[str]
    detail: Mapped[str] = mapped_column(default="{}", server_default="{}")


def changed(db: Session | Connection, name: str, subject: str, detail: Mapping[str, Any] | None = None) -> None:
    """Write down a change in the transaction that makes it."""
    values = {"at": now_ms(), "name": name, "subject": subject, "detail": dumps(detail or {})}
    db.execute(insert(table_of(StateChange)), values)
