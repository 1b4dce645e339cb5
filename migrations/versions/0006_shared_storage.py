"""Agent groups that move: the shared directory of a host, when it was found silent, which agents stop by themselves.

Revision: 0006, after 0005.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hosts", sa.Column("volume", sa.String(), nullable=True))
    op.add_column("hosts", sa.Column("agent_lease_ms", sa.BigInteger(), nullable=True))
    op.add_column("hosts", sa.Column("silent_at", sa.BigInteger(), nullable=True))
    op.add_column("instances", sa.Column("fenced", sa.Integer(), server_default="0", nullable=False))
