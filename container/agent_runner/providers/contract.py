"""What the runner asks of a provider, the thing that takes a model's turn.

A provider opens a query with a first prompt; later prompts are pushed into it while it is open. Its events are read
in a thread of their own, and the next event is asked for only when the runner has dealt with the one before, so that
a result is durable before the provider goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from agent_runner.tools import ToolResult


class Prompt(NamedTuple):
    """One input. `asks` are the ids (`id="…"`) of the messages that want an answer; other messages are context.

    Everything a model needs is in `text`; `asks` is for providers that are no models.
    """

    text: str
    asks: frozenset[int] = frozenset()


class QueryInput(NamedTuple):
    """How a query starts. `continuation` is what this provider reported last in this session, opaque to the runner."""

    prompt: Prompt
    continuation: str | None
    cwd: str
    instructions: str


class Init(NamedTuple):
    """The conversation has an identity now; it is stored at once, so that a crash in mid-turn can resume it."""

    continuation: str


class Result(NamedTuple):
    """The end of a turn that answers the `answers` oldest unanswered inputs (a provider may merge pushed ones).

    `text` None means a turn without words. A turn that failed is a raised error, and something that is no answer,
    such as the note that a conversation was compacted, is a `Notice`.
    """

    text: str | None
    answers: int = 1
    continuation: str | None = None


class Notice(NamedTuple):
    """Something for the log: a retry inside the provider, progress, a compaction."""

    message: str


class Activity(NamedTuple):
    """A sign of life, to be given for everything that happens during a turn."""


class ToolStarted(NamedTuple):
    """A tool call began. `timeout_ms` is a timeout it declared (a shell command), else None."""

    call_id: str
    name: str
    timeout_ms: int | None = None


class ToolEnded(NamedTuple):
    call_id: str


Event = Init | Result | Notice | Activity | ToolStarted | ToolEnded


class Query(Protocol):
    """One open conversation. All methods but `events` return at once and may be called from any thread."""

    def push(self, prompt: Prompt) -> None:
        """Give it another input, also while a turn runs."""

    def end(self) -> None:
        """No more input: finish what was pushed, then end the events."""

    def abort(self) -> None:
        """End the events as soon as possible."""

    def events(self) -> Iterator[Event]:
        """What happens, until the query ends. Raises what makes a turn fail."""


class Provider(Protocol):
    """`native_commands`: slash commands are given as they were typed, not as messages."""

    name: str
    native_commands: bool

    def query(self, start: QueryInput) -> Query:
        """Open a conversation."""

    def classify(self, error: BaseException) -> str:
        """The class of an error, one of `failures.KINDS`."""


class ProviderOptions(NamedTuple):
    """What a provider is made with. `call_tool` runs one of our tools in this process, for providers without MCP."""

    assistant_name: str
    mcp_servers: Mapping[str, Any]
    environment: Mapping[str, str]
    additional_directories: tuple[str, ...]
    model: str | None
    effort: str | None
    call_tool: Callable[[str, dict[str, Any]], ToolResult]
