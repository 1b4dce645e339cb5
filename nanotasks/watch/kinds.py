"""The kinds of events: their names, fields and meanings, as `docs/events.md` lists them.

The names and the fields of each are a contract. Every event has exactly its fields, in this order after `at` and
`event`; what is not known is null. No field holds a text of a message or of a platform.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nanotasks.errors import UsageError


@dataclass(frozen=True)
class Kind:
    """One kind of event. Where it comes from `state_changes`, the subject there is its first field."""

    name: str
    meaning: str
    fields: tuple[str, ...]


_MESSAGE = ("id", "message", "channel_type", "platform_id")
_AT_AGENT = ("session", "group", "inbound")
_INSTANCE = ("instance", "session", "group", "host")
_DELIVERY = ("delivery", "session", "group", "message_out", "in_reply_to", "channel_type", "platform_id")
_ATTEMPT = ("delivery", "session", "group", "message_out", "in_reply_to", "attempt")
_RUN = ("run", "series", "session", "group", "scheduled_for_at", "inbound")

KINDS = (
    Kind("message.accepted", "A message was taken; the platform got its 2xx.", (*_MESSAGE, "thread_id")),
    Kind("message.routed", "It goes to this session; once for each.", (*_MESSAGE, *_AT_AGENT, "wakes")),
    Kind("message.dropped", "It goes nowhere, for this reason.", (*_MESSAGE, "group", "reason")),
    Kind("message.retrying", "It could not be routed and is tried again.", (*_MESSAGE, "tries", "worker", "task")),
    Kind("message.appended", "It stands in the session's file, and the agent is to answer.", (*_MESSAGE, *_AT_AGENT)),
    Kind("message.context", "It stands in the session's file as context, which ends it.", (*_MESSAGE, *_AT_AGENT)),
    Kind("message.answered", "A reply to it was delivered.", (*_MESSAGE, *_AT_AGENT)),
    Kind("message.completed", "The agent is done with it and had nothing to say.", (*_MESSAGE, *_AT_AGENT)),
    Kind("message.dead", "It was given up; without a session it was never routed.", (*_MESSAGE, *_AT_AGENT, "tries")),
    Kind("session.woken", "The start of an agent was recorded.", (*_INSTANCE, "runtime", "epoch")),
    Kind(
        "wake.failed",
        "An agent could not be started; it is tried again then.",
        ("session", "group", "tries", "next_attempt_at", "worker", "task"),
    ),
    Kind("instance.started", "The agent's container or process runs.", (*_INSTANCE, "runtime", "epoch")),
    Kind("instance.ended", "It ended, or was never started, for this reason.", (*_INSTANCE, "reason", "exit_code")),
    Kind("delivery.entered", "What an agent or the host said was taken over for delivery.", (*_DELIVERY, "kind")),
    Kind("delivery.attempted", "A send began.", (*_ATTEMPT, "worker", "task")),
    Kind(
        "delivery.retrying",
        "The send failed and is tried again; the time is known while no other attempt was made.",
        (*_ATTEMPT, "error_class", "next_attempt_at"),
    ),
    Kind(
        "delivery.parked",
        "The send failed too long for its lane; it is tried again, and others go first.",
        (*_ATTEMPT, "error_class", "next_attempt_at"),
    ),
    Kind("delivery.held", "Nobody knows whether it arrived, and the channel says: wait.", (*_ATTEMPT, "error_class")),
    Kind("delivery.delivered", "The platform took it.", (*_DELIVERY, "attempts", "platform_message_id")),
    Kind("delivery.dead", "It was given up.", (*_DELIVERY, "attempts", "error_class")),
    Kind("run.claimed", "An agent took an occurrence of a scheduled task.", (*_RUN, "attempt", "late_ms")),
    Kind("run.retrying", "An attempt at it failed and is made again.", (*_RUN, "attempt", "error_class")),
    Kind("run.ended", "It ended: ran, failed, was missed, skipped or cancelled.", (*_RUN, "outcome", "error_class")),
    Kind(
        "lease.taken_over",
        "A lease went from an owner that died or ran late to another.",
        ("lease", "owner", "from_owner", "epoch"),
    ),
    Kind("lease.freed", "A lease whose owner died or ran late is nobody's now.", ("lease", "from_owner", "epoch")),
    Kind("host.up", "A host counts as up.", ("host",)),
    Kind("host.down", "A host counts as down: it stopped, or is silent.", ("host", "reason")),
    Kind(
        "group.moved",
        "An agent group lives on another host now.",
        ("group", "from_host", "to_host", "epoch", "reason"),
    ),
    Kind("audit.recorded", "An operator or an approval changed something.", ("audit", "actor", "action", "target")),
)
BY_NAME = {kind.name: kind for kind in KINDS}
NOUNS = tuple(dict.fromkeys(name.partition(".")[0] for name in BY_NAME))


def wanted(words: Collection[str]) -> frozenset[str]:
    """The names that these words mean: a whole name, or a noun for all of its events; none means all.

    Raises `UsageError` for a word that is neither.
    """
    found: set[str] = set()
    for word in words:
        names = {name for name in BY_NAME if name == word or name.partition(".")[0] == word}
        if not names:
            raise UsageError(f"There are no events {word!r}.", fix=f"Give one of {', '.join(NOUNS)}, or a whole name.")
        found |= names
    return frozenset(found or BY_NAME)
