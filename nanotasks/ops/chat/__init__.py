"""The chat client: a person at a terminal, or a script on a pipe, talking through the gateway's terminal socket."""

from __future__ import annotations

import io
import os
import sys
import threading
from typing import Any, TextIO

from nanotasks.channels.terminal.protocol import DEFAULT_CHAT, DEFAULT_USER, SOCKET
from nanotasks.ops.chat.conversation import Conversation, Manner
from nanotasks.ops.chat.faces import PersonalFace, PipedFace
from nanotasks.paths import socket_path
from nanotasks.settings import Settings

__all__ = ["run_chat"]

_GLANCE_S = 0.1


def run_chat(
    settings: Settings,
    *,
    chat: str = DEFAULT_CHAT,
    user: str = DEFAULT_USER,
    name: str | None = None,
    group: bool = False,
    once: bool = False,
    message: str | None = None,
    patience_s: float | None = None,
    connect_s: float = 2.0,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Talk until the user leaves, and return the exit code.

    At a terminal: a prompt; replies are printed as they arrive, and Ctrl-D leaves. Otherwise each line of `stdin`
    is a message, sent when the one before is settled; replies go to `stdout`, words to `stderr`. With `message`
    that is all that is said; with `once` one line is. `connect_s` is how long a gateway may take to appear,
    `patience_s` (default: NANOTASKS_CHAT_PATIENCE_S) how long nothing may come back.

    Returns 0, or 1 when something that was said was refused or failed. Raises `DependencyDownError` when no
    gateway answers, `NoAnswerError` when patience ran out, and `KeyboardInterrupt` for Ctrl-C.
    """
    source, out, err = stdin or sys.stdin or io.StringIO(), stdout or sys.stdout, stderr or sys.stderr
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows no emoji must not end the chat.
            stream.reconfigure(errors="replace")
    personal = message is None and not once and source.isatty() and out.isatty()
    hello: dict[str, Any] = {"chat": chat, "user": user, "name": name or user, "group": group}
    manner = Manner(
        hello=hello,
        one_by_one=not personal,
        once=once or message is not None,
        patience_s=settings.chat_patience_s if patience_s is None else patience_s,
        connect_s=connect_s,
        max_line_bytes=settings.max_body_kb * 1024 - 1024,
    )
    path = socket_path(settings, SOCKET)
    if personal:
        face = PersonalFace(
            out, settings.host_id, colour=os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        )
        return _talk(Conversation(path, face, manner), face)
    conversation = Conversation(path, PipedFace(out, err, settings.host_id), manner)
    if message is not None:
        conversation.say(message)
        conversation.end()
    else:
        threading.Thread(target=_feed, args=(conversation, source), name="chat-input", daemon=True).start()
    return conversation.run()


def _feed(conversation: Conversation, source: TextIO) -> None:
    raw = getattr(source, "buffer", None)
    try:
        for line in source if raw is None else raw:
            text = (line if isinstance(line, str) else line.decode("utf-8", "replace")).rstrip("\r\n")
            if text.strip():
                conversation.say(text)
    finally:
        conversation.end()


def _talk(conversation: Conversation, face: PersonalFace) -> int:
    try:
        import readline  # noqa: F401  Gives input() its line editing and history.
    except ImportError:
        pass
    talking = _InThread(conversation)
    talking.start()
    try:
        while not face.welcomed.wait(_GLANCE_S) and talking.is_alive():
            pass
        while talking.is_alive():
            text = face.ask()
            if text.strip():
                conversation.say(text)
    except EOFError:
        face.leave()
    except KeyboardInterrupt:
        face.leave()
        raise
    finally:
        conversation.end()
        talking.join()
    if talking.error is not None:
        raise talking.error
    return 0


class _InThread(threading.Thread):
    """Runs a conversation beside the prompt, and keeps its error for the prompt's thread."""

    def __init__(self, conversation: Conversation) -> None:
        super().__init__(name="chat", daemon=True)
        self._conversation = conversation
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._conversation.run()
        except BaseException as error:
            self.error = error
