"""The rows of the session files, as the rest of the runner handles them."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """Where something came from or goes to. Another agent has the channel type `agent` and its group as platform id."""

    channel_type: str | None
    platform_id: str | None
    thread_id: str | None = None

    @property
    def complete(self) -> bool:
        """Whether a message can be sent there."""
        return bool(self.channel_type and self.platform_id)

    def is_chat_of(self, other: Route) -> bool:
        """Whether both are the same chat, in whatever threads."""
        return (self.channel_type, self.platform_id) == (other.channel_type, other.platform_id)


NOWHERE = Route(None, None)


class InboundRow(NamedTuple):
    """A row of `messages_in`. `seq` is the id a model sees; `trigger` is False for context, which causes no turn.

    `tries` is how often an agent died while it held the row.
    """

    id: str
    seq: int | None
    kind: str
    timestamp: str
    trigger: bool
    route: Route
    content: str
    tries: int = 0

    @property
    def is_task(self) -> bool:
        """Whether this is an occurrence of a scheduled task."""
        return self.kind == "task"


class TaskEnd(NamedTuple):
    """How a run of a scheduled task ended, for the host: `succeeded`, `failed` or `not_woken`."""

    id: str
    outcome: str
    error_class: str | None = None
    error: str | None = None
    result: str | None = None


class OutboundRow(NamedTuple):
    """A row of `messages_out` that is about to be written; it gets its seq when it is."""

    id: str
    kind: str
    route: Route
    content: str
    in_reply_to: str | None


class Destination(NamedTuple):
    """A place the agent may write to, by its local name."""

    name: str
    display_name: str
    kind: str
    channel_type: str | None
    platform_id: str | None
    agent_group_id: str | None

    def route(self, thread_id: str | None = None) -> Route:
        if self.kind == "agent":
            return Route("agent", self.agent_group_id, thread_id)
        return Route(self.channel_type, self.platform_id, thread_id)
