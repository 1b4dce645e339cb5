"""Whose heartbeats a host's are: the data directory that lives under its id, and how often that changed.

Revision: 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("hosts", sa.Column("place", sa.String(), nullable=True))
    op.add_column("hosts", sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False))
