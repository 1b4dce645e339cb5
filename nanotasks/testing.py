"""Helpers for tests of nanotasks and of adapters written for it: private servers, and waiting for facts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

from nanotasks.channels import registry
from nanotasks.channels.contract import (
    Accepted,
    Adapter,
    Capabilities,
    InboundMessage,
    OutboundMessage,
    Sender,
    Sent,
)

T = TypeVar("T")


def wait_for(fact: Callable[[], T], timeout_s: float = 10.0, *, every_s: float = 0.01, what: str = "") -> T:
    """Call `fact` until it is truthy and return its value; raises `AssertionError` naming `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or fact}")
        time.sleep(every_s)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class PostgresServer:
    """A throw-away PostgreSQL server on a private port, run as an unprivileged user when the caller is root."""

    binaries: Path
    directory: Path
    port: int

    @classmethod
    def start_or_skip(cls, directory: Path) -> PostgresServer:
        """Start a server below `directory`; skips the test, or fails it where PostgreSQL is required."""
        import pytest

        binaries = _postgres_binaries()
        if binaries is None:
            reason = "no PostgreSQL server binary is installed"
            if os.environ.get("NANOTASKS_TEST_REQUIRE_POSTGRES") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        server = cls(binaries, directory, free_port())
        server._start()
        return server

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
            for parent in self.directory.parents:
                if parent.stat().st_mode & 0o001 == 0:
                    parent.chmod(parent.stat().st_mode | 0o011)
        data = self.directory / "data"
        self._run("initdb", "-D", str(data), "-A", "trust", "-U", "nanotasks", "--no-sync", "-E", "UTF8")
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.directory} -c fsync=off"
        )
        self._run("pg_ctl", "-D", str(data), "-l", str(self.directory / "log"), "-w", "-o", options, "start")

    def create_database(self, template: str = "template1") -> str:
        """The URL of a new database: empty, or a copy of the database `template`, which nobody may be using."""
        name = f"t{uuid.uuid4().hex[:12]}"
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "nanotasks")
        self._run("createdb", *address, "-T", template, name)
        return f"postgresql+psycopg://nanotasks@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """Stop the server at once."""
        self._run("pg_ctl", "-D", str(self.directory / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        log = self.directory / "commands.log"
        with log.open("ab") as output:
            result = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False)
        if result.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{log.read_text()[-2000:]}")


def _postgres_binaries() -> Path | None:
    for version in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (version / "initdb").exists():
            return version
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class RecordingAccept:
    """Stands for intake in tests of a receiver: keeps what was accepted, takes the same message once.

    While `failure` is set, nothing is accepted and every call raises it.
    """

    def __init__(self) -> None:
        self.messages: list[InboundMessage] = []
        self.failure: Exception | None = None
        self._lock = threading.Lock()

    def __call__(self, message: InboundMessage) -> Accepted:
        if self.failure is not None:
            raise self.failure
        with self._lock:
            for number, known in enumerate(self.messages):
                if (known.address, known.message_id) == (message.address, message.message_id):
                    return Accepted(f"event-{number}", duplicate=True)
            self.messages.append(message)
            return Accepted(f"event-{len(self.messages) - 1}")


@dataclass(frozen=True)
class HttpCall:
    """One request that an `HttpRecorder` got; header names are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class HttpAnswers:
    """What an `HttpRecorder` answers. `cut` hangs up instead, `drip` sends one byte now and then and never ends."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    cut: bool = False
    drip: bool = False


class HttpRecorder:
    """A real HTTP server on a private port that records what is posted to it, for tests of a sender."""

    def __init__(self) -> None:
        self.calls: list[HttpCall] = []
        self.answers = HttpAnswers()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        """Stop, and let go of the requests that drip."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                recorder.calls.append(HttpCall(self.path, headers, body))
                self._reply(recorder.answers)

            def _reply(self, answers: HttpAnswers) -> None:
                if answers.cut:
                    self.close_connection = True
                    return
                if answers.drip:
                    while not recorder._released.wait(0.05):
                        self.wfile.write(b"H")
                    return
                self.send_response(answers.status)
                for name, value in answers.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answers.body)))
                self.end_headers()
                self.wfile.write(answers.body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: the calls are recorded."""

        return Handler


class ScriptedSender:
    """A sender that does as it is told: by default every message arrives.

    `fail(text, *errors)` makes the next sends of the message with that text raise these errors, one each. With a
    `journal` every arrived message is appended to that file as well, so that several processes can share one.
    """

    def __init__(self, journal: Path | None = None) -> None:
        self.calls: list[OutboundMessage] = []
        self.arrived: list[OutboundMessage] = []
        self.before: Callable[[OutboundMessage], None] = lambda _message: None
        self.after: Callable[[OutboundMessage], None] = lambda _message: None
        self._journal = journal
        self._errors: dict[str, list[Exception]] = {}
        self._lock = threading.Lock()

    def fail(self, text: str, *errors: Exception) -> None:
        """Let the next sends of this text fail."""
        self._errors.setdefault(text, []).extend(errors)

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        """Do what the script says. `before` runs before the message arrives, `after` once it has."""
        text = str(message.content.get("text"))
        with self._lock:
            self.calls.append(message)
            errors = self._errors.get(text)
            error = errors.pop(0) if errors else None
        self.before(message)
        if error is not None:
            raise error
        with self._lock:
            self.arrived.append(message)
            number = len(self.arrived)
        if self._journal is not None:
            line = {"delivery_id": message.delivery_id, "attempt": message.attempt, "text": text}
            with self._journal.open("a") as output:
                output.write(json.dumps(line) + "\n")
        self.after(message)
        return Sent(f"sent-{number}")

    @property
    def texts(self) -> list[str]:
        """The texts that arrived, in order."""
        return [str(message.content.get("text")) for message in self.arrived]


@contextmanager
def channel_of(
    sender: Sender, channel_type: str = "scripted", capabilities: Capabilities | None = None
) -> Iterator[None]:
    """Register a channel that sends through `sender`, for the block."""
    offered = capabilities or Capabilities(idempotent=True)
    registry.register(Adapter(channel_type, lambda _settings: offered, sender=lambda _settings: sender))
    try:
        yield
    finally:
        registry.unregister(channel_type)
