"""The rows of session files as the host handles them. Content is JSON text; times are milliseconds UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class NewRow:
    """An inbound row to be written. It is pending, and gets its seq when it is inserted.

    `series_id` defaults to the id. `trigger` 1 may wake the agent, 0 is context only; `on_wake` shows the row to
    the first poll of a runner only.
    """

    id: str
    kind: str
    content: str
    timestamp_ms: int
    platform_id: str | None = None
    channel_type: str | None = None
    thread_id: str | None = None
    process_after_ms: int | None = None
    recurrence: str | None = None
    series_id: str | None = None
    trigger: int = 1
    source_session_id: str | None = None
    on_wake: bool = False


@dataclass(frozen=True)
class InboundRow:
    """A stored inbound row. `timestamp` and `process_after` are texts, as whoever wrote the row wrote them."""

    id: str
    seq: int | None
    kind: str
    timestamp: str
    status: str
    process_after: str | None
    recurrence: str | None
    series_id: str | None
    tries: int
    trigger: int
    platform_id: str | None
    channel_type: str | None
    thread_id: str | None
    content: str
    source_session_id: str | None
    on_wake: int


@dataclass(frozen=True)
class Inserted:
    """What an insertion did: the seq of each new row by id, and the ids that were there before."""

    seqs: Mapping[str, int] = field(default_factory=dict)
    present: tuple[str, ...] = ()


class DeliveryStatus(StrEnum):
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivered:
    """The outcome of one outbound row, as it is told to the agent."""

    message_out_id: str
    at_ms: int
    platform_message_id: str | None = None
    status: DeliveryStatus = DeliveryStatus.DELIVERED


class DestinationType(StrEnum):
    CHANNEL = "channel"
    AGENT = "agent"


@dataclass(frozen=True)
class Destination:
    """A name the agent may address: a chat (`channel_type`, `platform_id`) or another agent group."""

    name: str
    type: DestinationType
    display_name: str | None = None
    channel_type: str | None = None
    platform_id: str | None = None
    agent_group_id: str | None = None


@dataclass(frozen=True)
class OutboundRow:
    """A row of `messages_out` whose every field has its type.

    `deliver_after_ms` is None where the row may go at once. `rowid` is the order in which rows were written.
    """

    rowid: int
    id: str
    seq: int | None
    in_reply_to: str | None
    timestamp: str
    deliver_after_ms: int | None
    kind: str
    platform_id: str | None
    channel_type: str | None
    thread_id: str | None
    content: str


@dataclass(frozen=True)
class BadRow:
    """A row of `messages_out` that cannot be used. `id` is None where that cannot be read either."""

    rowid: int
    id: str | None
    reason: str


@dataclass(frozen=True)
class ContainerState:
    """What the runner says it is doing; a field of the wrong type reads as None."""

    current_tool: str | None
    tool_declared_timeout_ms: int | None
    tool_started_at: str | None
    updated_at: str | None


@dataclass(frozen=True)
class TaskReport:
    """What a runner says of one run of a scheduled task; None where it says nothing that can be used.

    `outcome` is `succeeded`, `failed` or `not_woken` (the script that runs first saw nothing to do).
    """

    claimed_ms: int | None = None
    ended_ms: int | None = None
    outcome: str | None = None
    error_class: str | None = None
    error: str | None = None
    result: str | None = None
