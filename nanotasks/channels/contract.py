"""What a channel adapter is: two halves, a receiver in the gateway and a stateless sender in any worker.

An adapter declares what it can do (`Capabilities`); the core never asks a live connection for it. Either half
may be written with plain functions or with coroutines. `nanotasks.channels.conformance` is the suite that every
adapter passes; subclass it for one of your own, with the helpers of `nanotasks.testing`.

The errors a sender raises decide what becomes of the delivery:

    TransientError        the platform or the way to it is not well: try again, with growing pauses
    RateLimitedError      try again after the time the platform named
    DestinationError      the chat cannot be reached (gone, blocked): holds its lane for a while, then is parked
    PermanentError        this message will never be accepted: dead at once, the lane goes on
    UnknownOutcomeError   it may have arrived: sent again only under the same key, or held, as the channel says
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from nanotasks.errors import NanotasksError
from nanotasks.settings import Settings


@dataclass(frozen=True)
class Capabilities:
    """What the core may expect of a channel.

    `idempotent`: sending twice with one `delivery_id` shows the message once, so an unknown outcome is sent again.
    `uncertain` decides for the others. `rate_limit_per_s` is per installation, 0 for none.
    """

    supports_threads: bool = False
    idempotent: bool = False
    uncertain: Literal["resend", "hold"] = "resend"
    rate_limit_per_s: float = 0.0
    supports_edits: bool = False
    supports_reactions: bool = False
    supports_files: bool = True
    supports_typing: bool = False
    direct_addressable: bool = True


@dataclass(frozen=True)
class Address:
    """Where a message came from, or where answers to it go."""

    channel_type: str
    platform_id: str
    thread_id: str | None = None


@dataclass(frozen=True)
class InboundMessage:
    """One platform message, normalised by a receiver.

    `message_id` is the platform's; the same id with the same sender, text and attachments is the same message.
    `content` is a JSON object: `text`, `sender`, `senderId`, `senderName`, `attachments` (with base64 `data`), ….
    `timestamp` is ISO-8601 UTC. `is_mention` means that the platform itself says the bot was addressed; a direct
    message is one. `is_group` is None where the platform does not say.
    """

    address: Address
    message_id: str
    content: Mapping[str, Any]
    timestamp: str
    kind: str = "chat"
    is_mention: bool = False
    is_group: bool | None = None
    reply_to: Address | None = None


@dataclass(frozen=True)
class Accepted:
    """The answer to an accepted message: its event id, and whether it was already known."""

    event_id: str
    duplicate: bool = False


@dataclass(frozen=True)
class OutboundFile:
    name: str
    data: bytes


@dataclass(frozen=True)
class OutboundMessage:
    """One send. `delivery_id` is the idempotency key; `attempt` counts from 1."""

    delivery_id: str
    attempt: int
    address: Address
    content: Mapping[str, Any]
    kind: str = "chat"
    files: tuple[OutboundFile, ...] = ()


@dataclass(frozen=True)
class Sent:
    """What the platform called the message, where it says so."""

    platform_message_id: str | None = None


class SendError(NanotasksError):
    """The message was not sent."""

    error_class: ClassVar[str] = "transient"


class TransientError(SendError):
    """The platform did not take the message this time."""


class RateLimitedError(SendError):
    """The platform asks for a pause."""

    error_class = "rate_limited"

    def __init__(self, what: str | None = None, *, retry_after_s: float, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.retry_after_s = retry_after_s


class DestinationError(SendError):
    """The chat cannot be reached."""

    error_class = "destination"


class PermanentError(SendError):
    """The platform will never accept this message."""

    error_class = "permanent"


class UnknownOutcomeError(SendError):
    """The send ended without an answer; the message may have arrived."""

    error_class = "unknown_outcome"


class Sender(Protocol):
    """The stateless half: every call may run in another worker process."""

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent | Awaitable[Sent]:
        """Hand one message to the platform within `deadline_s` seconds. Raises a `SendError`."""


class TypingSender(Sender, Protocol):
    """A sender of a channel with `supports_typing`."""

    def set_typing(self, address: Address) -> Awaitable[None] | None:
        """Show for some seconds that the agent is at work; failures do not matter."""


AcceptCallable: TypeAlias = Callable[[InboundMessage], Accepted]


class Receiver(Protocol):
    """The half in the gateway. A message counts as taken only once `accept` returned.

    When `accept` raises, the platform must be told to send the message again.
    """

    def start(self, accept: AcceptCallable) -> Awaitable[None] | None:
        """Begin to receive; `accept` is thread-safe, blocks until the event is committed, and may raise."""

    def stop(self) -> Awaitable[None] | None:
        """Stop receiving; what was accepted stays accepted."""


@dataclass(frozen=True)
class HttpRequest:
    """What somebody posted to `/webhooks/<channel_type>/<path>`; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpAnswer:
    """What the platform is answered: a status, a JSON body, more headers."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class HttpReceiver(Receiver, Protocol):
    """A receiver whose platform calls us. The gateway listens, caps the body, and turns errors into answers."""

    def handle(self, request: HttpRequest) -> HttpAnswer | Awaitable[HttpAnswer]:
        """Verify, normalise and accept; a plain function runs in a thread.

        Raises `UnauthorizedError` (401), `InvalidError` (400), and whatever `accept` raises (429, 503).
        """


@dataclass(frozen=True)
class Adapter:
    """One channel: its type, its capabilities under these settings, and how to make its halves (None: it has none)."""

    channel_type: str
    capabilities: Callable[[Settings], Capabilities]
    sender: Callable[[Settings], Sender] | None = None
    receiver: Callable[[Settings], Receiver] | None = None
    enabled: Callable[[Settings], bool] = field(default=lambda _settings: True)
