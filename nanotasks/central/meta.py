"""About the database itself: its role and version, the operators' audit log, and the claimed ticks of beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, Session, mapped_column

from nanotasks.central.base import Base, Millis, RowNumber
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps


class SchemaMeta(Base):
    """One row, `central`: what this database is and which release wrote its schema."""

    __tablename__ = "schema_meta"

    meta_key: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    schema_version: Mapped[str]
    app_version: Mapped[str]
    created_at: Mapped[Millis]
    updated_at: Mapped[Millis]


class AuditEntry(Base):
    """One operator or approval action."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_at", "at"), Index("ix_audit_log_target", "target", "action"))

    id: Mapped[RowNumber]
    at: Mapped[Millis]
    actor: Mapped[str]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[str] = mapped_column(default="{}", server_default="{}")


def record(session: Session, actor: str, action: str, target: str, detail: Mapping[str, Any]) -> None:
    """Write one audit row in the transaction of the action itself, so that neither is there without the other."""
    session.add(AuditEntry(at=now_ms(), actor=actor, action=action, target=target, detail=dumps(detail)))


class Tick(Base):
    """The last time a periodic duty was claimed; two beats that send the same tick do its work once."""

    __tablename__ = "ticks"

    name: Mapped[str] = mapped_column(primary_key=True)
    claimed_at: Mapped[Millis]
