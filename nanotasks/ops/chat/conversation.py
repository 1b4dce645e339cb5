"""What a chat client does between its user and the gateway.

Everything that happens is an event in one queue: a line the user gave, the end of his lines, a frame, a lost
connection. A message keeps its id until it is settled, so after a lost connection, or when the gateway had no
room, the same message is simply sent again: it is taken once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nanotasks.errors import DependencyDownError, InvalidError, NanotasksError
from nanotasks.ids import new_id
from nanotasks.ops.chat.faces import Face, Said
from nanotasks.ops.chat.link import Frame, Link, Lost

_TICK_S = 0.1
_RECONNECT_S = 0.2
_BACKLOG_S = 2.0
_LINES_AHEAD = 100
_REMEMBERED_ITEMS = 10_000


class NoAnswerError(NanotasksError):
    """Nothing came back."""

    code = "no_answer"


@dataclass(frozen=True)
class Line:
    """The user said something."""

    text: str


@dataclass(frozen=True)
class EndOfInput:
    """The user says no more."""


Event: TypeAlias = Line | EndOfInput | Frame | Lost


@dataclass(frozen=True)
class Manner:
    """How to talk. `one_by_one` waits until each message is settled, and shows all replies before it ends; `once`
    ends after the first message. Times are in seconds."""

    hello: dict[str, Any] = field(default_factory=dict)
    one_by_one: bool = True
    once: bool = False
    patience_s: float = 300.0
    connect_s: float = 2.0
    max_line_bytes: int = 10 * 1024 * 1024


class Conversation:
    """One user's conversation in one chat."""

    def __init__(self, path: Path, face: Face, manner: Manner) -> None:
        self._path = path
        self._face = face
        self._manner = manner
        self._events: queue.Queue[Event] = queue.Queue()
        self._room = threading.Semaphore(_LINES_AHEAD)
        self._link: Link | None = None
        self._greeted = False
        self._welcome_at: float | None = None
        self._backlog = 0
        self._lines: deque[str] = deque()
        self._open: OrderedDict[str, Said] = OrderedDict()
        self._items: OrderedDict[int, None] = OrderedDict()
        self._ended = False
        self._settled = 0
        self._alive_at = time.monotonic()
        self._connect_at = 0.0
        self._exit_code = 0

    def say(self, text: str) -> None:
        """The user said something; callable from any thread, waits when he is far ahead."""
        self._room.acquire()
        self._events.put(Line(text))

    def end(self) -> None:
        """The user says no more; callable from any thread."""
        self._events.put(EndOfInput())

    def run(self) -> int:
        """Talk to the end; 0, or 1 when something the user said was refused or failed.

        Raises `DependencyDownError` when no gateway answers, `NoAnswerError` when patience ran out.
        """
        self._alive_at = time.monotonic()
        try:
            while not self._is_finished():
                if self._link is None:
                    self._connect()
                self._send_due()
                try:
                    self._handle(self._events.get(timeout=_TICK_S))
                except queue.Empty:
                    self._check_patience()
        finally:
            if self._link is not None:
                self._link.close()
        return self._exit_code

    def _is_finished(self) -> bool:
        if not self._manner.one_by_one:
            return self._ended
        if self._manner.once and self._settled:
            return True
        return self._ended and self._has_seen_backlog() and not self._lines and not self._open

    def _connect(self) -> None:
        if time.monotonic() < self._connect_at:
            return
        self._connect_at = time.monotonic() + _RECONNECT_S
        try:
            self._link = Link(self._path, self._events.put)
        except DependencyDownError as error:
            self._wait_or_give_up(error)
        else:
            self._link.send("hello", **self._manner.hello)

    def _wait_or_give_up(self, error: DependencyDownError) -> None:
        patience = self._manner.patience_s if self._greeted else self._manner.connect_s
        may_give_up = self._manner.one_by_one or not self._greeted
        if may_give_up and time.monotonic() - self._alive_at > patience:
            raise error

    def _send_due(self) -> None:
        if self._link is None or not self._has_seen_backlog():
            return
        while self._lines and not (self._manner.one_by_one and self._open):
            self._room.release()
            self._open[new_id("chat")] = Said(self._lines.popleft())
        for message_id, said in self._open.items():
            if not said.sent and said.send_at <= time.monotonic():
                self._link.send("message", id=message_id, text=said.text)
                said.sent = True
                # A message that is refused again and again is no sign of life.
                if said.send_at == 0.0:
                    self._alive_at = time.monotonic()

    def _has_seen_backlog(self) -> bool:
        if self._welcome_at is None:
            return False
        return self._backlog <= 0 or time.monotonic() - self._welcome_at > _BACKLOG_S

    def _check_patience(self) -> None:
        if not (self._manner.one_by_one and self._open):
            return
        if time.monotonic() - self._alive_at > self._manner.patience_s:
            raise NoAnswerError(
                f"Nothing came back for {self._manner.patience_s:g} s.",
                why="The message is safe and will be answered when it can be.",
                fix="See `nanotasks status`. Replies are shown by the next `nanotasks chat`.",
            )

    def _handle(self, event: Event) -> None:
        match event:
            case Line(text):
                self._hear(text)
            case EndOfInput():
                self._ended = True
            case Frame(link, frame_type, fields) if link is self._link:
                self._on_frame(frame_type, fields)
            case Lost(link) if link is self._link:
                self._on_lost()
            case _:
                pass  # An earlier connection's last words.

    def _on_frame(self, frame_type: str, fields: dict[str, Any]) -> None:
        match frame_type:
            case "welcome":
                self._on_welcome(fields)
            case "accepted":
                self._alive_at = time.monotonic()
            case "message":
                self._on_message(fields)
            case "typing":
                self._alive_at = time.monotonic()
                self._face.typing()
            case "settled":
                self._on_settled(fields)
            case "error":
                self._on_error(fields)
            case _:
                pass  # A newer gateway may say more than we understand.

    def _hear(self, text: str) -> None:
        if len(text.encode()) > self._manner.max_line_bytes:
            self._exit_code = 1
            self._room.release()
            self._face.trouble(f"A line has more than {self._manner.max_line_bytes} bytes and was not sent.")
        else:
            self._lines.append(text)

    def _on_welcome(self, fields: dict[str, Any]) -> None:
        self._greeted = True
        self._welcome_at = time.monotonic()
        self._backlog = fields["waiting"]
        self._face.welcome(fields)

    def _on_message(self, fields: dict[str, Any]) -> None:
        item = fields["item"]
        if item not in self._items:
            self._items[item] = None
            if len(self._items) > _REMEMBERED_ITEMS:
                self._items.popitem(last=False)
            self._face.reply(fields)
            for said in self._open.values():
                said.replied = said.replied or said.sent
        # Confirmed only now that it is shown.
        if self._link is not None:
            self._link.send("ack", items=[item])
        self._backlog -= 1
        self._alive_at = time.monotonic()

    def _on_settled(self, fields: dict[str, Any]) -> None:
        said = self._open.pop(fields["id"], None)
        if said is None:
            return
        self._settled += 1
        if fields["state"] == "dead":
            self._exit_code = 1
        self._face.settled(said, fields["state"], fields["reason"])

    def _on_error(self, fields: dict[str, Any]) -> None:
        if self._welcome_at is None:
            if "retry_after_s" not in fields:
                raise InvalidError(fields["what"], why=fields["why"], fix=fields["fix"])
            self._wait_or_give_up(DependencyDownError(fields["what"], why=fields["why"], fix=fields["fix"]))
            return
        said = self._open.get(fields.get("id", ""))
        if said is not None and "retry_after_s" in fields:
            said.sent = False
            said.send_at = time.monotonic() + fields["retry_after_s"]
            return
        if said is not None:
            del self._open[fields["id"]]
            self._settled += 1
        self._exit_code = 1
        self._face.trouble(" ".join(fields[part] for part in ("what", "why", "fix") if fields[part]))

    def _on_lost(self) -> None:
        self._link = None
        if self._welcome_at is None:
            return
        self._welcome_at = None
        self._alive_at = time.monotonic()
        for said in self._open.values():
            said.sent = False
        self._face.trouble("The connection is lost; trying again.")
