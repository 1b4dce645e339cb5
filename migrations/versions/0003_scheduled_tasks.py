"""Scheduled tasks: series, runs and their attempts; the time zones of users and agent groups.

Revision: 0003, after 0002.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_OPEN = sa.text("state IN ('planned', 'claimed', 'retrying')")
_WORKING = sa.text("state IN ('claimed', 'retrying')")
_UNPROJECTED = sa.text("projected_at IS NULL")
_PAUSED = sa.text("paused_until IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "task_series",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("agent_group_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("script", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("expression", sa.String(), nullable=False),
        sa.Column("anchor_at", sa.BigInteger(), nullable=True),
        sa.Column("zone", sa.String(), nullable=False),
        sa.Column("channel_type", sa.String(), nullable=True),
        sa.Column("platform_id", sa.String(), nullable=True),
        sa.Column("thread_id", sa.String(), nullable=True),
        sa.Column("state", sa.String(), server_default="active", nullable=False),
        sa.Column("paused_until", sa.BigInteger(), nullable=True),
        sa.Column("paused_reason", sa.String(), nullable=True),
        sa.Column("misfire", sa.String(), server_default="run_once", nullable=False),
        sa.Column("misfire_window_s", sa.Integer(), nullable=True),
        sa.Column("overlap", sa.String(), server_default="queue", nullable=False),
        sa.Column("attempts_max", sa.Integer(), nullable=False),
        sa.Column("retry_classes", sa.String(), nullable=False),
        sa.Column("failures_max", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('once', 'cron', 'every')", name=op.f("ck_task_series_kind")),
        sa.CheckConstraint(
            "state IN ('active', 'paused', 'completed', 'cancelled')", name=op.f("ck_task_series_state")
        ),
        sa.CheckConstraint("misfire IN ('skip', 'run_once', 'run_all')", name=op.f("ck_task_series_misfire")),
        sa.CheckConstraint("overlap IN ('skip', 'queue')", name=op.f("ck_task_series_overlap")),
        sa.ForeignKeyConstraint(["agent_group_id"], ["agent_groups.id"], name=op.f("fk_task_series_agent_group_id")),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_task_series_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_series")),
    )
    op.create_index("ix_task_series_group_state", "task_series", ["agent_group_id", "state"])
    op.create_index("ix_task_series_session_id", "task_series", ["session_id"])
    op.create_index("ix_task_series_next", "task_series", ["state", "next_at", "id"])
    op.create_index(
        "ix_task_series_paused_until", "task_series", ["paused_until"], sqlite_where=_PAUSED, postgresql_where=_PAUSED
    )
    op.create_table(
        "task_runs",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("series_id", sa.String(), nullable=False),
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("scheduled_for", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(), server_default="schedule", nullable=False),
        sa.Column("state", sa.String(), server_default="planned", nullable=False),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("inbound_id", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("lateness_ms", sa.BigInteger(), nullable=True),
        sa.Column("error_class", sa.String(), nullable=True),
        sa.Column("error_text", sa.String(), nullable=True),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("projected_at", sa.BigInteger(), nullable=True),
        sa.Column("signalled_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("origin IN ('schedule', 'manual', 'backfill')", name=op.f("ck_task_runs_origin")),
        sa.CheckConstraint("state IN ('planned', 'claimed', 'retrying', 'ended')", name=op.f("ck_task_runs_state")),
        sa.CheckConstraint(
            "outcome IN ('succeeded', 'failed', 'missed', 'skipped', 'cancelled')",
            name=op.f("ck_task_runs_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["series_id"], ["task_series.id"], name=op.f("fk_task_runs_series_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name=op.f("fk_task_runs_session_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_runs")),
        sa.UniqueConstraint("series_id", "scheduled_for", name=op.f("uq_task_runs_series_id_scheduled_for")),
        sa.UniqueConstraint("session_id", "inbound_id", name=op.f("uq_task_runs_session_id_inbound_id")),
    )
    op.create_index(
        "ix_task_runs_open", "task_runs", ["session_id", "state", "due_at"], sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.create_index(
        "ix_task_runs_working",
        "task_runs",
        ["series_id", "claimed_at"],
        sqlite_where=_WORKING,
        postgresql_where=_WORKING,
    )
    op.create_index(
        "ix_task_runs_unprojected",
        "task_runs",
        ["session_id"],
        sqlite_where=_UNPROJECTED,
        postgresql_where=_UNPROJECTED,
    )
    op.create_index("ix_task_runs_ended", "task_runs", ["outcome", "finished_at"])
    op.create_table(
        "task_attempts",
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("inbound_id", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("error_class", sa.String(), nullable=True),
        sa.Column("error_text", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["task_runs.id"], name=op.f("fk_task_attempts_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "number", name=op.f("pk_task_attempts")),
    )
    op.add_column("users", sa.Column("timezone", sa.String(), nullable=True))
    op.add_column("agent_groups", sa.Column("timezone", sa.String(), nullable=True))
