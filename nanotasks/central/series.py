"""Scheduled tasks: the definition (series), what happened (runs), and each try at a run.

    series   active ◀──▶ paused          completed (nothing follows)      cancelled
    run      planned ──▶ claimed ──▶ ended: succeeded | failed
                │           └──────▶ retrying ──▶ claimed
                └──────────────────▶ ended: missed | skipped | cancelled

(series, scheduled_for) is unique: one occurrence is one run, whatever is repeated. A claim of the agent's wins over an
end that was planned for the run, so the last arrow may be taken back; the note says so.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, one_of
from nanotasks.domain.vocabulary import (
    MISFIRE_POLICIES,
    OVERLAP_POLICIES,
    RUN_ORIGINS,
    RUN_OUTCOMES,
    RUN_STATES,
    SERIES_KINDS,
    SERIES_STATES,
)


class TaskSeries(Base):
    """The definition of a scheduled task.

    `session_id` is where its occurrences run; the three address columns are where its plain answers go. `next_at` is
    the occurrence that is planned by the schedule. `anchor_at` is where an every-N schedule counts from. `failures`
    counts failed runs in a row. `version` grows with every change of what the session's file says.
    """

    __tablename__ = "task_series"
    __table_args__ = (
        one_of("kind", *SERIES_KINDS),
        one_of("state", *SERIES_STATES),
        one_of("misfire", *MISFIRE_POLICIES),
        one_of("overlap", *OVERLAP_POLICIES),
        Index("ix_task_series_group_state", "agent_group_id", "state"),
        Index("ix_task_series_session_id", "session_id"),
        Index("ix_task_series_next", "state", "next_at", "id"),
        Index(
            "ix_task_series_paused_until",
            "paused_until",
            sqlite_where=text("paused_until IS NOT NULL"),
            postgresql_where=text("paused_until IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"))
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    name: Mapped[str | None]
    prompt: Mapped[str]
    script: Mapped[str | None]
    kind: Mapped[str]
    expression: Mapped[str]
    anchor_at: Mapped[Millis | None]
    zone: Mapped[str]
    channel_type: Mapped[str | None]
    platform_id: Mapped[str | None]
    thread_id: Mapped[str | None]
    state: Mapped[str] = mapped_column(default="active", server_default="active")
    paused_until: Mapped[Millis | None]
    paused_reason: Mapped[str | None]
    misfire: Mapped[str] = mapped_column(default="run_once", server_default="run_once")
    misfire_window_s: Mapped[int | None]
    overlap: Mapped[str] = mapped_column(default="queue", server_default="queue")
    attempts_max: Mapped[int]
    retry_classes: Mapped[str]
    failures_max: Mapped[int]
    failures: Mapped[int] = mapped_column(default=0, server_default="0")
    next_at: Mapped[Millis | None]
    version: Mapped[int] = mapped_column(default=0, server_default="0")
    created_by: Mapped[str]
    created_at: Mapped[Millis]
    updated_at: Mapped[Millis]


class TaskRun(Base):
    """One occurrence and what became of it.

    `due_at` is when its row is due: `scheduled_for`, unless it was moved or is tried again. `inbound_id` is the row
    in the session's file, a new one for each attempt. `projected_at` is set once the file says what this row says, for
    the `version` that was read. `lateness_ms` is the first claim's distance from `due_at`.
    """

    __tablename__ = "task_runs"
    __table_args__ = (
        UniqueConstraint("series_id", "scheduled_for"),
        UniqueConstraint("session_id", "inbound_id"),
        one_of("origin", *RUN_ORIGINS),
        one_of("state", *RUN_STATES),
        one_of("outcome", *RUN_OUTCOMES),
        Index(
            "ix_task_runs_open",
            "session_id",
            "state",
            "due_at",
            sqlite_where=text("state IN ('planned', 'claimed', 'retrying')"),
            postgresql_where=text("state IN ('planned', 'claimed', 'retrying')"),
        ),
        Index(
            "ix_task_runs_working",
            "series_id",
            "claimed_at",
            sqlite_where=text("state IN ('claimed', 'retrying')"),
            postgresql_where=text("state IN ('claimed', 'retrying')"),
        ),
        Index(
            "ix_task_runs_unprojected",
            "session_id",
            sqlite_where=text("projected_at IS NULL"),
            postgresql_where=text("projected_at IS NULL"),
        ),
        Index("ix_task_runs_ended", "outcome", "finished_at"),
        Index(
            "ix_task_runs_finished_at",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[Id]
    series_id: Mapped[str] = mapped_column(ForeignKey("task_series.id", ondelete="CASCADE"))
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    scheduled_for: Mapped[Millis]
    due_at: Mapped[Millis]
    origin: Mapped[str] = mapped_column(default="schedule", server_default="schedule")
    state: Mapped[str] = mapped_column(default="planned", server_default="planned")
    outcome: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    inbound_id: Mapped[str]
    claimed_at: Mapped[Millis | None]
    finished_at: Mapped[Millis | None]
    lateness_ms: Mapped[Millis | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
    result: Mapped[str | None]
    note: Mapped[str | None]
    version: Mapped[int] = mapped_column(default=0, server_default="0")
    projected_at: Mapped[Millis | None]
    signalled_at: Mapped[Millis | None]
    created_at: Mapped[Millis]
    updated_at: Mapped[Millis]


class TaskAttempt(Base):
    """One try at a run: what was claimed when, and how it ended; `outcome` is NULL while it runs."""

    __tablename__ = "task_attempts"
    __table_args__ = (
        Index("ix_task_attempts_claimed_at", "claimed_at"),
        Index(
            "ix_task_attempts_finished_at",
            "finished_at",
            sqlite_where=text("finished_at IS NOT NULL"),
            postgresql_where=text("finished_at IS NOT NULL"),
        ),
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("task_runs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    inbound_id: Mapped[str]
    claimed_at: Mapped[Millis]
    finished_at: Mapped[Millis | None]
    outcome: Mapped[str | None]
    error_class: Mapped[str | None]
    error_text: Mapped[str | None]
