"""The closed vocabularies that people write: on the command line, in a state file, in the central database.

`central/` enforces each with a CHECK. They stand here, where nothing else is imported, so that help and
completion need no database.
"""

from __future__ import annotations

UNKNOWN_SENDER_POLICIES = ("strict", "request_approval", "public")
SESSION_MODES = ("shared", "per-thread", "agent-shared")
ENGAGE_MODES = ("pattern", "mention", "mention-sticky")
SENDER_SCOPES = ("all", "known")
IGNORED_POLICIES = ("drop", "accumulate")
ROLES = ("owner", "admin")
PROVIDERS = ("auto", "demo", "mock")
CLI_SCOPES = ("disabled", "group", "global")
EVENT_STATES = ("pending", "routed", "dropped", "dead")
SESSION_STATUSES = ("active", "closed")
DELIVERY_STATES = ("pending", "sending", "retrying", "parked", "held", "delivered", "dead")
ERROR_CLASSES = ("transient", "rate_limited", "permanent", "destination", "unknown_outcome")
SERIES_KINDS = ("once", "cron", "every")
SERIES_STATES = ("active", "paused", "completed", "cancelled")
MISFIRE_POLICIES = ("skip", "run_once", "run_all")
OVERLAP_POLICIES = ("skip", "queue")
RUN_ORIGINS = ("schedule", "manual", "backfill")
RUN_STATES = ("planned", "claimed", "retrying", "ended")
RUN_OUTCOMES = ("succeeded", "failed", "missed", "skipped", "cancelled")
# What the runner calls a failure of a task, and two that only the host sees.
RUN_ERROR_CLASSES = ("rate_limit", "overload", "network", "session", "other", "script", "crash", "unknown")
