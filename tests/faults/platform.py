"""A chat platform that misbehaves as it is told, and writes down what reached it."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# How long a send is left without an answer where it is told to time out; longer than any deadline of a test.
SILENCE_S = 20.0


@dataclass(frozen=True)
class Arrival:
    """One message as it reached the platform; `taken` says that the platform showed it to the chat."""

    at: float
    chat: str
    key: str
    attempt: int
    text: str
    files: tuple[str, ...]
    taken: bool


@dataclass(frozen=True)
class Answer:
    """What the platform does with one send.

    `ok`, `refuse` (with `status`, `retry_after_s`), `silent` (shown, and never answered), `reset` (shown, and the
    connection reset), `slow` (shown after `seconds`).
    """

    what: str = "ok"
    status: int = 500
    retry_after_s: float | None = None
    seconds: float = 0.5


class Platform:
    """An HTTP server for the webhook channel's posts; the answers to a text are scripted, one per send of it."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self._scripts: dict[str, deque[Answer]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._closing = threading.Event()
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                platform._take(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # a sender that was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    @contextmanager
    def open(self) -> Iterator[Platform]:
        """Serve for a block."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def script(self, text: str, *answers: Answer) -> None:
        """How the next sends of a text are answered; after these they are taken."""
        with self._lock:
            self._scripts[text].extend(answers)

    def of_chats(self, chats: set[str]) -> list[Arrival]:
        """What reached these chats, in order."""
        with self._lock:
            return [one for one in self.arrivals if one.chat in chats]

    def _take(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        text = str(body["content"].get("text", ""))
        with self._lock:
            scripted = self._scripts.get(text)
            answer = scripted.popleft() if scripted else Answer()
        if answer.what == "slow":
            self._closing.wait(answer.seconds)
        self._note(body, request.headers["Idempotency-Key"], text, taken=answer.what != "refuse")
        if answer.what == "silent":
            self._closing.wait(SILENCE_S)
            request.close_connection = True
        elif answer.what == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
            request.close_connection = True
        else:
            self._answer(request, answer)

    def _note(self, body: dict[str, Any], key: str, text: str, *, taken: bool) -> None:
        files = tuple(str(one["name"]) for one in body["files"])
        arrival = Arrival(time.monotonic(), str(body["platform_id"]), key, int(body["attempt"]), text, files, taken)
        with self._lock:
            self.arrivals.append(arrival)

    def _answer(self, request: BaseHTTPRequestHandler, answer: Answer) -> None:
        refused = answer.what == "refuse"
        content = b"{}" if refused else json.dumps({"id": f"p-{len(self.arrivals)}"}).encode()
        request.send_response(answer.status if refused else 200)
        if answer.retry_after_s is not None:
            request.send_header("Retry-After", f"{answer.retry_after_s:g}")
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)
