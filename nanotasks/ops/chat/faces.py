"""How a conversation looks: to a program (replies on stdout, words on stderr), and to a person at a terminal."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from nanotasks.ops.cli.output import plain

PROMPT = "> "
_TYPING_AFTER_S = 2.0

# Why a message was not taken, in words.
_REASONS = {
    "no_agent_wired": "no agent listens in this chat; see `nanotasks wirings create --help`",
    "no_agent_engaged": "it was meant for no agent; in a group chat, write @ and an agent's name",
    "not_mentioned": "no agent listens in this chat, and none was mentioned",
    "chat_denied": "an operator turned this chat away",
    "command_filtered": "this command is not for agents",
    "command_refused": "this command is for the agent's admins; see `nanotasks roles create --help`",
    "no_content": "there is nothing in it",
    "intercepted": "it was taken for something else",
    "unknown_sender_strict": "this chat takes messages from known people only; see `nanotasks members create --help`",
    "unknown_sender_request_approval": "somebody has to approve you first",
}


@dataclass
class Said:
    """A message of the user that is not settled yet."""

    text: str
    replied: bool = False
    sent: bool = False
    send_at: float = 0.0


class Face(Protocol):
    """What a conversation shows."""

    def welcome(self, frame: dict[str, Any]) -> None:
        """The gateway knows who is here."""

    def reply(self, letter: dict[str, Any]) -> None:
        """A message came."""

    def typing(self) -> None:
        """An agent is at work."""

    def settled(self, said: Said, state: str, reason: str | None) -> None:
        """Nothing more is to come of what the user said."""

    def trouble(self, words: str) -> None:
        """Something the user should know."""


def outcome(said: Said, state: str, reason: str | None) -> str | None:
    """What to say about a message that got no reply, or None when there is nothing to say."""
    because = _REASONS.get(reason or "", reason or "no reason is recorded")
    if state == "dropped":
        return f"Not taken: {because}."
    if state == "dead":
        return f"Given up: {because}."
    if state == "context":
        return None if said.replied else "Kept for later: nobody was addressed."
    return None if said.replied else "There is no reply."


def letter_text(letter: dict[str, Any], here: str) -> str:
    """A message with its files, as lines; a file kept on another host than `here` is shown with that."""
    return "\n".join(part for part in (letter["text"], *(_file_line(file, here) for file in letter["files"])) if part)


def _file_line(file: dict[str, Any], here: str) -> str:
    where = file["path"] if file["host"] == here else f"{file['host']}:{file['path']}"
    return f"[file] {file['name']} ({_size(file['size'])}) {where}"


def _size(count: int) -> str:
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


class PipedFace:
    """Each reply on `out` as it is, nothing else; words on `err`."""

    def __init__(self, out: TextIO, err: TextIO, here: str) -> None:
        self._here = here
        self._out = out
        self._err = err

    def welcome(self, frame: dict[str, Any]) -> None:
        """Nothing: the script knows where it is."""

    def reply(self, letter: dict[str, Any]) -> None:
        """Print it, whole, at once."""
        text = letter_text(letter, self._here)
        if self._out.isatty():
            text = plain(text, keep="\n\t")
        print(text, file=self._out, flush=True)

    def typing(self) -> None:
        """Nothing."""

    def settled(self, said: Said, state: str, reason: str | None) -> None:
        """Only what a person should know about a message without a reply."""
        words = outcome(said, state, reason)
        if words is not None:
            self.trouble(words)

    def trouble(self, words: str) -> None:
        """Words on stderr."""
        print(plain(words, keep="\n"), file=self._err, flush=True)


class PersonalFace:
    """Replies above the prompt, with the name of who speaks. Characters that drive a terminal are shown as escapes."""

    def __init__(self, out: TextIO, here: str, *, colour: bool) -> None:
        self._here = here
        self._out = out
        self._colour = colour
        self._lock = threading.Lock()
        self._asking = False
        self._asked_at = 0.0
        self._typing_shown = True
        self.welcomed = threading.Event()

    def ask(self) -> str:
        """What the user says next. Raises `EOFError` when he leaves."""
        self._asking = True
        try:
            text = input(PROMPT)
        finally:
            self._asking = False
        self._asked_at = time.monotonic()
        self._typing_shown = False
        return text

    def leave(self) -> None:
        """End the line that the prompt stands on."""
        self._out.write("\n")
        self._out.flush()

    def welcome(self, frame: dict[str, Any]) -> None:
        """Where one is, and how to leave; said once."""
        if not self.welcomed.is_set():
            kind = "group chat" if frame["group"] else "chat"
            self._show(self._dim(f"This is the {kind} {plain(frame['chat'])}. Ctrl-D leaves."))
            self.welcomed.set()

    def reply(self, letter: dict[str, Any]) -> None:
        """Print it with its speaker."""
        self._typing_shown = True
        name = plain(letter["from"] or "agent")
        self._show(f"{self._bold(name + ':')} {plain(letter_text(letter, self._here), keep=chr(10) + chr(9))}")

    def typing(self) -> None:
        """Said once for each message, when the reply takes some time."""
        if not self._typing_shown and time.monotonic() - self._asked_at > _TYPING_AFTER_S:
            self._typing_shown = True
            self._show(self._dim("…"))

    def settled(self, said: Said, state: str, reason: str | None) -> None:
        """What became of a message without a reply."""
        words = outcome(said, state, reason)
        if words is not None:
            self._show(self._dim(plain(words)))

    def trouble(self, words: str) -> None:
        """Words among the replies."""
        self._show(self._dim(plain(words, keep="\n")))

    def _show(self, text: str) -> None:
        with self._lock:
            prompt = f"{PROMPT}{_typed_so_far()}" if self._asking else ""
            self._out.write(f"\r\x1b[K{text}\n{prompt}")
            self._out.flush()

    def _bold(self, text: str) -> str:
        return f"\x1b[1m{text}\x1b[0m" if self._colour else text

    def _dim(self, text: str) -> str:
        return f"\x1b[2m{text}\x1b[0m" if self._colour else text


def _typed_so_far() -> str:
    readline = sys.modules.get("readline")
    return "" if readline is None else str(readline.get_line_buffer())
