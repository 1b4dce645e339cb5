"""Hosts, and every start of a container on one of them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Flag, Id, Millis, one_of

HOST_STATES = ("up", "draining", "down")
STORAGES = ("local", "shared")
RUNTIMES = ("docker", "process")


class Host(Base):
    """A machine with a data directory, workers and a container runtime.

    `place` is the data directory that lives under this id, `epoch` how often another one took its place. `volume` is
    the mark of the shared directory where its agent groups live, and `agent_lease_ms` how long its agents there go on
    without a sign of life from it; `silent_at` is when it was found silent for too long.
    """

    __tablename__ = "hosts"
    __table_args__ = (one_of("state", *HOST_STATES), one_of("storage", *STORAGES))

    id: Mapped[Id]
    labels: Mapped[str] = mapped_column(default="{}", server_default="{}")
    capacity: Mapped[int] = mapped_column(default=50, server_default="50")
    state: Mapped[str] = mapped_column(default="up", server_default="up")
    storage: Mapped[str] = mapped_column(default="local", server_default="local")
    place: Mapped[str | None]
    epoch: Mapped[Millis] = mapped_column(default=0, server_default="0")
    heartbeat_at: Mapped[Millis]
    created_at: Mapped[Millis]
    volume: Mapped[str | None]
    agent_lease_ms: Mapped[Millis | None]
    silent_at: Mapped[Millis | None]


class Instance(Base):
    """One start of one container or child process. At most one of a session has no end.

    `started_at` is when the start was recorded, `running_at` when the runtime had started it. A `fenced` one stops
    itself when nothing is heard of its host.
    """

    __tablename__ = "instances"
    __table_args__ = (
        one_of("runtime", *RUNTIMES),
        Index(
            "uq_instances_live",
            "session_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index(
            "ix_instances_host_live",
            "host_id",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_instances_session_id_epoch", "session_id", "epoch"),
        Index("ix_instances_host_id_ended_at", "host_id", "ended_at"),
        Index("ix_instances_started_at", "started_at"),
        Index(
            "ix_instances_running_at",
            "running_at",
            sqlite_where=text("running_at IS NOT NULL"),
            postgresql_where=text("running_at IS NOT NULL"),
        ),
        Index(
            "ix_instances_ended_at",
            "ended_at",
            sqlite_where=text("ended_at IS NOT NULL"),
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    host_id: Mapped[str] = mapped_column(ForeignKey("hosts.id"))
    runtime: Mapped[str]
    runtime_id: Mapped[str | None]
    pid: Mapped[int | None]
    epoch: Mapped[int]
    isolated: Mapped[Flag] = mapped_column(default=0, server_default="0")
    fenced: Mapped[Flag] = mapped_column(default=0, server_default="0")
    started_at: Mapped[Millis]
    running_at: Mapped[Millis | None]
    ended_at: Mapped[Millis | None]
    end_reason: Mapped[str | None]
    exit_code: Mapped[int | None]
    reset_at: Mapped[Millis | None]


class HostFile(Base):
    """A session file of a host: its schema version, size and last integrity result."""

    __tablename__ = "host_files"

    host_id: Mapped[str] = mapped_column(ForeignKey("hosts.id"), primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id"), index=True)
    kind: Mapped[str]
    schema_version: Mapped[int] = mapped_column(default=1, server_default="1")
    size_bytes: Mapped[Millis] = mapped_column(default=0, server_default="0")
    integrity: Mapped[str | None]
    checked_at: Mapped[Millis | None]
