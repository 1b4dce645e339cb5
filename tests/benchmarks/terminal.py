"""A minimal terminal client for measuring: one socket, one chat, frames as dictionaries."""

from __future__ import annotations

import json
import select
import socket
import time
from pathlib import Path
from typing import Any


class Terminal:
    """One client of one chat; reads frames as they come and acknowledges what it was shown."""

    def __init__(self, path: Path, chat: str, *, group: bool = False) -> None:
        self.chat = chat
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._send({"type": "hello", "chat": chat, "user": "bench", "group": group})
        self.wait("welcome")

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def say(self, text: str, ident: str) -> None:
        """Send one message without waiting for anything."""
        self._send({"type": "message", "id": ident, "text": text})

    def wait(self, frame_type: str, timeout_s: float = 60.0, **fields: Any) -> dict[str, Any]:
        """The next frame of that type with those fields; raises `AssertionError` when an error frame comes first."""
        deadline = time.monotonic() + timeout_s
        while True:
            for frame in self.frames(max(0.0, deadline - time.monotonic())):
                assert frame["type"] != "error", frame
                if frame["type"] == frame_type and all(frame.get(name) == value for name, value in fields.items()):
                    return frame
            assert time.monotonic() < deadline, f"no {frame_type} within {timeout_s} s in {self.chat}"

    def frames(self, timeout_s: float) -> list[dict[str, Any]]:
        """The first frame that comes within the time, as a list of one; an empty list when none came."""
        if b"\n" not in self._buffer and select.select([self._socket], [], [], timeout_s)[0]:
            data = self._socket.recv(65536)
            assert data, f"the gateway closed the chat {self.chat}"
            self._buffer += data
        if b"\n" not in self._buffer:
            return []
        line, _, self._buffer = self._buffer.partition(b"\n")
        frame: dict[str, Any] = json.loads(line)
        if frame["type"] == "message":
            self._send({"type": "ack", "items": [frame["item"]]})
        return [frame]

    def _send(self, frame: dict[str, Any]) -> None:
        self._socket.sendall(json.dumps(frame).encode() + b"\n")
