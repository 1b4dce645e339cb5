"""Watching: counters, durations, changes of state, canaries, and the indexes by which rows are read in time order.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", "label", name=op.f("pk_counters")),
    )
    op.create_table(
        "durations",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("bound_ms", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sum_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", "bound_ms", name=op.f("pk_durations")),
    )
    op.create_table(
        "folds",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("mark_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_folds")),
    )
    op.create_table(
        "canaries",
        sa.Column("worker", sa.String(), nullable=False),
        sa.Column("host_id", sa.String(), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name=op.f("pk_canaries")),
    )
    op.create_table(
        "state_changes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_state_changes")),
    )
    op.create_index("ix_state_changes_at", "state_changes", ["at"])
    op.add_column("instances", sa.Column("running_at", sa.BigInteger(), nullable=True))
    _index("ix_inbound_events_dead", "inbound_events", "received_at", "state = 'dead'")
    _index("ix_inbound_routes_dead", "inbound_routes", "finished_at", "state = 'dead'")
    op.create_index("ix_inbound_events_received_at", "inbound_events", ["received_at"])
    op.create_index("ix_deliveries_created_at", "deliveries", ["created_at"])
    op.create_index("ix_inbound_routes_created_at", "inbound_routes", ["created_at"])
    op.create_index("ix_delivery_attempts_started_at", "delivery_attempts", ["started_at"])
    op.create_index("ix_instances_started_at", "instances", ["started_at"])
    op.create_index("ix_task_attempts_claimed_at", "task_attempts", ["claimed_at"])
    for table, column in (
        ("inbound_routes", "appended_at"),
        ("inbound_routes", "finished_at"),
        ("deliveries", "finished_at"),
        ("delivery_attempts", "finished_at"),
        ("instances", "running_at"),
        ("instances", "ended_at"),
        ("task_attempts", "finished_at"),
        ("task_runs", "finished_at"),
    ):
        _index(f"ix_{table}_{column}", table, column, f"{column} IS NOT NULL")


def _index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
