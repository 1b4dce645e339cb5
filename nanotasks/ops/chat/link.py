"""A connection to the gateway's terminal socket: frames in and out, and the news when it breaks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanotasks.channels.terminal.protocol import encode
from nanotasks.errors import DependencyDownError

_CONNECT_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Frame:
    """What the gateway said."""

    link: Link
    type: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """The connection is gone."""

    link: Link


class Link:
    """One connection. Frames are handed to `on_event` from a thread of its own, `Lost` at the end."""

    def __init__(self, path: Path, on_event: Callable[[Frame | Lost], None]) -> None:
        """Connect. Raises `DependencyDownError` when nobody listens."""
        self._on_event = on_event
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_CONNECT_TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise DependencyDownError(
                "No gateway answers.",
                why=f"Nobody listens on {path}.",
                fix="Start everything with `nanotasks up` in another terminal, then come back; "
                "or, on a host with its own worker, `nanotasks gateway`.",
            ) from error
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, name="chat-link", daemon=True)
        self._thread.start()

    def send(self, frame_type: str, **fields: Any) -> None:
        """Send one frame; when the connection is broken, `Lost` says so."""
        try:
            self._socket.sendall(encode(frame_type, fields))
        except OSError:
            self._hang_up()

    def close(self) -> None:
        """Hang up."""
        self._hang_up()
        self._thread.join()

    def _hang_up(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _read(self) -> None:
        try:
            with self._socket, self._socket.makefile("rb") as lines:
                for line in lines:
                    fields = json.loads(line)
                    self._on_event(Frame(self, fields.pop("type"), fields))
        except (OSError, ValueError):
            pass  # A line cut short: the other side died in the middle of it.
        self._on_event(Lost(self))
