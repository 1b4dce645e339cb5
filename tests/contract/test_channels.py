"""The three built-in channels pass the suite that every adapter has to pass."""

from __future__ import annotations

import base64
import fcntl
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from nanotasks import signals
from nanotasks.central import database
from nanotasks.central.deliveries import MailboxItem
from nanotasks.channels import file, terminal, webhook
from nanotasks.channels.conformance import ChannelConformance, ChannelUnderTest, Shown
from nanotasks.channels.contract import (
    DestinationError,
    PermanentError,
    RateLimitedError,
    SendError,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.channels.outfiles import path_component
from nanotasks.channels.terminal.protocol import SOCKET
from nanotasks.channels.webhook.signature import signed_headers
from nanotasks.gateway.listener import open_listener
from nanotasks.gateway.server import Gateway
from nanotasks.paths import socket_path
from nanotasks.settings import Settings
from nanotasks.testing import HttpAnswers, HttpRecorder, RecordingAccept

SECRET = "correct horse battery staple"


@pytest.fixture(autouse=True)
def no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels work without Redis."""
    away = Settings(redis_url="redis+socket:///nowhere/redis.sock")
    monkeypatch.setattr(signals, "settings", lambda: away)
    monkeypatch.setattr(signals, "_process", signals._Process())


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Iterator[Settings]:
    """An installation with an empty central database."""
    made = Settings(
        data_dir=tmp_path / "data",
        runtime_dir=str(tmp_path / "run"),
        gateway_port=0,
        webhook_secret=SECRET,
        webhook_timeout_s=5.0,
    )
    made.data_dir.mkdir()
    shutil.copy(migrated, made.data_dir / "central.db")
    yield made
    database(made).close()


@pytest.fixture
def accept() -> RecordingAccept:
    """Intake that only records."""
    return RecordingAccept()


class Served(ChannelUnderTest):
    """A channel whose receiver runs in a real gateway."""

    url = ""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._gateway: Gateway | None = None
        self._thread: threading.Thread | None = None

    def start(self, accept: Any) -> None:
        listener = open_listener(self.settings)
        ready = threading.Event()
        channels = {self.adapter.channel_type: self.adapter}
        self._gateway = Gateway(self.settings, listener, accept, channels=channels, on_ready=lambda _url: ready.set())
        self.url = self._gateway.url
        self._thread = threading.Thread(target=self._gateway.run)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        if self._gateway is not None and self._thread is not None:
            self._gateway.stop()
            self._thread.join()
            self._gateway = None


class TerminalUnderTest(Served):
    adapter = terminal.ADAPTER

    def shown(self) -> list[Shown]:
        with database(self.settings).read() as session:
            items = session.scalars(select(MailboxItem).order_by(MailboxItem.id)).all()
        return [
            Shown(
                item.platform_id,
                json.loads(item.content)["text"],
                tuple((file["name"], Path(file["path"]).read_bytes()) for file in json.loads(item.files)),
            )
            for item in items
        ]

    def say(self, message_id: str, text: str) -> str:
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(socket_path(self.settings, SOCKET)))
            frames = client.makefile("rwb")
            for frame in (
                {"type": "hello", "chat": "chat-1", "user": "ann"},
                {"type": "message", "id": message_id, "text": text},
            ):
                frames.write(json.dumps(frame).encode() + b"\n")
            frames.flush()
            for line in frames:
                answer = json.loads(line)
                if answer["type"] == "accepted":
                    return "taken"
                if answer["type"] == "error":
                    return "again" if "retry_after_s" in answer else "refused"
        raise ConnectionError("the gateway hung up")


class FileUnderTest(ChannelUnderTest):
    adapter = file.ADAPTER

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def shown(self) -> list[Shown]:
        folder = file.directory(self.settings)
        lines = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        return [
            Shown(
                line["platform_id"],
                line["content"]["text"],
                tuple((Path(name).name, (folder / name).read_bytes()) for name in line["files"]),
            )
            for line in sorted(lines, key=lambda line: line["at"])
        ]

    def hanging(self) -> AbstractContextManager[None]:
        return self._locked()

    def failing(self) -> dict[type[SendError], AbstractContextManager[None]]:
        return {DestinationError: self._directory_in_the_way()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self._path()
        path.parent.mkdir(parents=True)
        with path.open("a") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _directory_in_the_way(self) -> Iterator[None]:
        self._path().mkdir(parents=True)
        yield
        self._path().rmdir()

    def _path(self) -> Path:
        return file.directory(self.settings) / f"{path_component('chat-1')}.jsonl"


class WebhookUnderTest(Served):
    adapter = webhook.ADAPTER

    def __init__(self, settings: Settings) -> None:
        self.platform = HttpRecorder()
        super().__init__(replace(settings, webhook_outbound_url=self.platform.url))

    def shown(self) -> list[Shown]:
        bodies = [json.loads(call.body) for call in self.platform.calls]
        return [
            Shown(
                body["platform_id"],
                body["content"]["text"],
                tuple((file["name"], base64.b64decode(file["data"])) for file in body["files"]),
            )
            for body in bodies
        ]

    def hanging(self) -> AbstractContextManager[None]:
        return self._answering(HttpAnswers(drip=True))

    def failing(self) -> dict[type[SendError], AbstractContextManager[None]]:
        return {
            TransientError: self._answering(HttpAnswers(status=500)),
            RateLimitedError: self._answering(HttpAnswers(status=429, headers={"Retry-After": "7"})),
            DestinationError: self._answering(HttpAnswers(status=410)),
            PermanentError: self._answering(HttpAnswers(status=422)),
            UnknownOutcomeError: self._answering(HttpAnswers(cut=True)),
        }

    def say(self, message_id: str, text: str) -> str:
        fields = {"id": message_id, "platform_id": "chat-1", "text": text, "sender_id": "ann"}
        body = json.dumps(fields).encode()
        headers = signed_headers(SECRET, time.time(), body)
        try:
            status = httpx.post(f"{self.url}/webhooks/webhook", content=body, headers=headers).status_code
        except httpx.ConnectError as error:
            raise ConnectionError(str(error)) from error
        if status < 300:
            return "taken"
        return "again" if status in {408, 429} or status >= 500 else "refused"

    @contextmanager
    def _answering(self, answers: HttpAnswers) -> Iterator[None]:
        usual = self.platform.answers
        self.platform.answers = answers
        yield
        self.platform.answers = usual
        self.platform.calls.clear()


class TestTerminal(ChannelConformance):
    """The terminal channel."""

    @pytest.fixture
    def channel(self, settings: Settings) -> Iterator[ChannelUnderTest]:
        """A terminal channel, its gateway stopped at the end."""
        made = TerminalUnderTest(settings)
        yield made
        made.stop()


class TestFile(ChannelConformance):
    """The file channel."""

    @pytest.fixture
    def channel(self, settings: Settings) -> ChannelUnderTest:
        """A file channel in an empty folder."""
        return FileUnderTest(settings)


class TestWebhook(ChannelConformance):
    """The webhook channel."""

    @pytest.fixture
    def channel(self, settings: Settings) -> Iterator[ChannelUnderTest]:
        """A webhook channel and the server it posts to."""
        made = WebhookUnderTest(settings)
        yield made
        made.stop()
        made.platform.close()
