"""The control plane: one module per aggregate, each with its models and the queries on them.

Importing this package imports every model, so that the metadata is whole.
"""

from nanotasks.central import (
    approvals,
    changes,
    chat_sdk,
    chats,
    deliveries,
    destinations,
    events,
    figures,
    groups,
    hosts,
    leases,
    meta,
    series,
    sessions,
    users,
)
from nanotasks.central.base import Base
from nanotasks.central.engine import Database, database, rows_changed

__all__ = [
    "Base",
    "Database",
    "approvals",
    "changes",
    "chat_sdk",
    "chats",
    "database",
    "deliveries",
    "destinations",
    "events",
    "figures",
    "groups",
    "hosts",
    "leases",
    "meta",
    "rows_changed",
    "series",
    "sessions",
    "users",
]
