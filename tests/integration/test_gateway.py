"""The gateway over real HTTP: what it takes, what it refuses and how, and how it starts and ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text

from nanotasks.central import Database
from nanotasks.central.events import InboundEvent
from nanotasks.channels.webhook.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign, signed_headers
from nanotasks.errors import ConfigError, ConflictError
from nanotasks.gateway.app import build
from nanotasks.gateway.listener import open_listener
from nanotasks.gateway.receivers import Receivers
from nanotasks.settings import Settings
from nanotasks.testing import free_port, wait_for
from nanotasks.watch.exposition import CONTENT_TYPE

SECRET = "correct horse battery staple"
MAX_BODY_KB = 64
# One client for all requests: making one takes longer than most of them.
HTTP = httpx.Client(verify=False)
START = "from nanotasks.gateway.server import run; from nanotasks.settings import settings; run(settings())"


@dataclass
class Running:
    """A gateway process, and the database behind it."""

    process: subprocess.Popen[bytes]
    settings: Settings
    central: Database

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings.gateway_port}"

    def events(self) -> int:
        with self.central.read() as session:
            return session.scalars(select(func.count()).select_from(InboundEvent)).one()

    def post(self, fields: dict[str, Any], path: str = "/webhooks/webhook") -> httpx.Response:
        body = json.dumps(fields).encode()
        return HTTP.post(self.url + path, content=body, headers=signed_headers(SECRET, time.time(), body))


def start(settings: Settings) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", START], env=settings.environment(), stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{settings.gateway_port}/healthz"
    wait_for(lambda: process.poll() is not None or answers(url), what="the gateway answers")
    return process


def answers(url: str) -> bool:
    try:
        return HTTP.get(url).status_code == 200
    except httpx.TransportError:
        return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.communicate()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Settings:
    """The settings of an installation without Redis, with its database."""
    data = tmp_path_factory.mktemp("gateway")
    shutil.copy(migrated, data / "central.db")
    return Settings(
        data_dir=data,
        runtime_dir=str(data / "run"),
        redis_url="redis+socket:///nowhere/redis.sock",
        gateway_port=free_port(),
        webhook_secret=SECRET,
        max_body_kb=MAX_BODY_KB,
        max_pending_per_chat=5,
    )


@pytest.fixture(scope="module")
def gateway(installation: Settings) -> Iterator[Running]:
    """One gateway for the tests that do not stop it; each uses its own chats."""
    process = start(installation)
    central = Database(installation.central_url)
    yield Running(process, installation, central)
    central.close()
    end(process)


def test_a_signed_message_is_stored_before_the_answer(gateway: Running) -> None:
    """202 comes with the id of a committed event."""
    answer = gateway.post({"id": "m-1", "platform_id": "signed", "text": "hello", "sender_id": "ann"})
    assert answer.status_code == 202
    with gateway.central.read() as session:
        event = session.get(InboundEvent, answer.json()["event_id"])
    assert event is not None
    assert (event.channel_type, event.platform_id, event.state) == ("webhook", "signed", "pending")
    assert json.loads(event.content) == {"text": "hello", "senderId": "ann"}


def test_a_repeated_message_is_taken_once(gateway: Running) -> None:
    """The second answer is 200 with the first one's event."""
    fields = {"id": "m-1", "platform_id": "repeated", "text": "hello"}
    first, before = gateway.post(fields), gateway.events()
    second = gateway.post(fields)
    assert (second.status_code, second.json()) == (200, {**first.json(), "duplicate": True})
    assert gateway.events() == before


def test_the_path_names_the_chat(gateway: Running) -> None:
    """A chat with slashes and spaces in its name may stand in the path."""
    answer = gateway.post({"id": "m-1", "text": "hello"}, "/webhooks/webhook/team%20a/general")
    with gateway.central.read() as session:
        event = session.get_one(InboundEvent, answer.json()["event_id"])
    assert event.platform_id == "team a/general"


def test_forged_requests_are_refused(gateway: Running) -> None:
    """Unsigned, wrongly signed, altered, and old requests are 401 and store nothing."""
    body, now = json.dumps({"id": "m-1", "platform_id": "forged", "text": "hello"}).encode(), str(int(time.time()))
    old = str(int(time.time()) - 301)
    before = gateway.events()
    for headers, sent in (
        ({}, body),
        ({TIMESTAMP_HEADER: now}, body),
        ({TIMESTAMP_HEADER: now, SIGNATURE_HEADER: sign("other", now, body)}, body),
        ({TIMESTAMP_HEADER: now, SIGNATURE_HEADER: sign(SECRET, now, body)}, body + b" "),
        ({TIMESTAMP_HEADER: old, SIGNATURE_HEADER: sign(SECRET, old, body)}, body),
        ({TIMESTAMP_HEADER: now, SIGNATURE_HEADER: sign(SECRET, old, body)}, body),
        ({TIMESTAMP_HEADER: "soon", SIGNATURE_HEADER: sign(SECRET, "soon", body)}, body),
    ):
        answer = HTTP.post(f"{gateway.url}/webhooks/webhook", content=sent, headers=headers)
        assert answer.status_code == 401, headers
        assert answer.json()["code"] == "unauthorized"
        assert SECRET not in answer.text
    assert gateway.events() == before


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b"[]", b'{"id": "m"}', b"\xff\xfe", b"[" * 50_000, b'{"id": NaN}', b'{"id": 1, "text": 2}'],
)
def test_what_is_not_a_message_is_refused(gateway: Running, body: bytes) -> None:
    """A signed body that is not JSON or not in the form is 400, with the reason."""
    answer = HTTP.post(
        f"{gateway.url}/webhooks/webhook", content=body, headers=signed_headers(SECRET, time.time(), body)
    )
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "what", "why", "fix"}


def test_a_large_body_is_refused_unread(gateway: Running) -> None:
    """A declared length over the cap is refused before anything is read, and a stream as soon as it passes it."""
    size = MAX_BODY_KB * 1024 + 1
    declared = HTTP.post(f"{gateway.url}/webhooks/webhook", content=b"x" * size)
    assert (declared.status_code, declared.json()["code"]) == (413, "too_large")

    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1024 * size:
            sent += 65536
            yield b"x" * 65536

    try:
        streamed = HTTP.post(f"{gateway.url}/webhooks/webhook", content=endless())
        assert streamed.status_code == 413
    except httpx.TransportError:
        pass  # The gateway hung up before the client had read the answer.
    assert sent < 1024 * size


def test_a_body_of_just_the_cap_is_read(gateway: Running) -> None:
    """The cap itself is allowed."""
    room = MAX_BODY_KB * 1024 - len(json.dumps({"id": "m", "platform_id": "cap", "text": ""}))
    assert gateway.post({"id": "m", "platform_id": "cap", "text": "x" * room}).status_code == 202


def test_metrics_are_those_of_the_command_line(gateway: Running) -> None:
    """Prometheus gets what `nanotasks metrics` prints, in the text format, without a text of any message."""
    gateway.post({"id": "m-1", "platform_id": "measured", "text": "a secret between us"})
    answer = HTTP.get(f"{gateway.url}/metrics")
    assert (answer.status_code, answer.headers["content-type"]) == (200, CONTENT_TYPE)
    printed = subprocess.run(
        [sys.executable, "-m", "nanotasks", "metrics"],
        env=gateway.settings.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    kept = [line for line in answer.text.splitlines() if "age_seconds" not in line and "oldest_due" not in line]
    assert kept and set(kept) <= set(printed.stdout.splitlines())
    assert "secret between us" not in answer.text and "measured" not in answer.text and SECRET not in answer.text
    assert 'nanotasks_oldest_due_seconds{kind="intake"}' in answer.text


def test_metrics_want_the_token_where_one_is_set(installation: Settings, sqlite_central: Database) -> None:
    """A wrong or missing token is 401, and the right one is in no answer."""
    app = build(
        replace(installation, metrics_token="let me in"), sqlite_central, Receivers(installation, {}, None), bool
    )  # type: ignore[arg-type]

    async def ask(client: str, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.get("/metrics", headers=headers)

    for headers in ({}, {"authorization": "Bearer let me out"}, {"authorization": "let me in"}):
        refused = asyncio.run(ask("127.0.0.1", **headers))
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        assert "let me in" not in refused.text
    assert asyncio.run(ask("192.0.2.1", authorization="Bearer let me in")).status_code == 200


def test_metrics_are_for_this_machine_without_a_token(installation: Settings, sqlite_central: Database) -> None:
    """Somebody elsewhere is told what to set."""
    app = build(installation, sqlite_central, Receivers(installation, {}, None), bool)  # type: ignore[arg-type]

    async def ask(client: str) -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.get("/metrics")

    assert [asyncio.run(ask(one)).status_code for one in ("127.0.0.1", "::1", "192.0.2.1")] == [200, 200, 401]
    assert "NANOTASKS_METRICS_TOKEN" in asyncio.run(ask("192.0.2.1")).json()["fix"]


@pytest.mark.parametrize("path", ["/", "/webhooks", "/webhooks/telegram", "/webhooks/terminal", "/webhook/webhook"])
def test_unknown_paths_are_not_found(gateway: Running, path: str) -> None:
    """Nothing is taken where no channel takes webhooks."""
    answer = gateway.post({"id": "m", "platform_id": "x", "text": "hello"}, path)
    assert answer.status_code == 404
    assert answer.json()["fix"]


def test_other_methods_are_refused(gateway: Running) -> None:
    """A webhook is posted."""
    answer = HTTP.get(f"{gateway.url}/webhooks/webhook")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"


def test_a_full_chat_is_told_to_wait(gateway: Running) -> None:
    """429 with Retry-After for that chat, while another still gets 202."""
    for number in range(5):
        assert gateway.post({"id": f"m-{number}", "platform_id": "full", "text": "x"}).status_code == 202
    answer = gateway.post({"id": "m-5", "platform_id": "full", "text": "x"})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many")
    assert int(answer.headers["Retry-After"]) >= 1
    assert gateway.post({"id": "m-5", "platform_id": "empty", "text": "x"}).status_code == 202


def test_what_cannot_be_committed_is_sent_again(gateway: Running) -> None:
    """503 with Retry-After while the database fails, /readyz says so, and afterwards all is well."""
    fields = {"id": "m-1", "platform_id": "uncommitted", "text": "hello"}
    with gateway.central.write() as session:
        session.execute(text("ALTER TABLE inbound_events RENAME TO away"))
    try:
        answer = gateway.post(fields)
        ready = HTTP.get(f"{gateway.url}/readyz")
    finally:
        with gateway.central.write() as session:
            session.execute(text("ALTER TABLE away RENAME TO inbound_events"))
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert (ready.status_code, ready.json()["database"]) == (503, "down")
    assert gateway.post(fields).status_code == 202


def test_it_is_ready_without_redis(gateway: Running) -> None:
    """Messages can be taken without Redis, and the answer says that it is away."""
    answer = HTTP.get(f"{gateway.url}/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "database": "ok",
        "redis": "down",
        "channels": {"terminal": "open", "webhook": "open"},
    }


def test_the_openapi_document_is_complete(gateway: Running) -> None:
    """Every path has its answers and their schemas, and every reference leads somewhere."""
    document = HTTP.get(f"{gateway.url}/openapi.json").json()
    assert set(document["paths"]) == {
        "/webhooks/{channel_type}",
        "/webhooks/{channel_type}/{chat}",
        "/healthz",
        "/metrics",
        "/readyz",
    }
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas, reference
    post = document["paths"]["/webhooks/{channel_type}"]["post"]
    assert set(post["responses"]) == {"200", "202", "400", "401", "404", "408", "413", "429", "500", "503"}
    for answer in post["responses"].values():
        assert answer["description"]
        assert answer["content"]["application/json"]["schema"]
    assert {parameter["name"] for parameter in post["parameters"]} == {
        "channel_type",
        TIMESTAMP_HEADER,
        SIGNATURE_HEADER,
    }
    assert set(schemas["MessageForm"]["required"]) == {"id", "platform_id"}
    assert all(field.get("description") for field in schemas["MessageForm"]["properties"].values())


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_a_second_gateway_serves_http_without_the_terminal(gateway: Running) -> None:
    """The terminal socket has one gateway; a second one says so and does the rest."""
    second = replace(gateway.settings, gateway_port=free_port())
    process = start(second)
    try:
        ready = HTTP.get(f"http://127.0.0.1:{second.gateway_port}/readyz").json()
        assert ready["channels"] == {"terminal": "failed", "webhook": "open"}
        assert HTTP.get(f"{gateway.url}/readyz").json()["channels"]["terminal"] == "open"
    finally:
        end(process)


def test_a_stopped_gateway_finishes_what_it_has_begun(installation: Settings) -> None:
    """SIGTERM during a slow request: the request is still answered, and the process ends with 0."""
    settings = replace(installation, gateway_port=free_port(), runtime_dir=str(installation.data_dir / "other"))
    process = start(settings)
    body = json.dumps({"id": "m-1", "platform_id": "slow", "text": "hello"}).encode()
    with closing(socket.create_connection(("127.0.0.1", settings.gateway_port))) as client:
        lines = [f"{name}: {value}" for name, value in signed_headers(SECRET, time.time(), body).items()]
        head = ["POST /webhooks/webhook HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines, "", ""]
        client.sendall("\r\n".join(head).encode() + body[:5])
        wait_for(lambda: len(established(settings.gateway_port)) > 0)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not answers(f"http://127.0.0.1:{settings.gateway_port}/healthz"))
        client.sendall(body[5:])
        assert client.recv(65536).startswith(b"HTTP/1.1 202")
    _, errors = process.communicate(timeout=15)
    assert process.returncode == 0, errors
    assert not (installation.data_dir / "other" / "terminal.sock").exists()


def established(port: int) -> list[str]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"]


def test_a_port_in_use_is_explained(installation: Settings) -> None:
    """The error names the setting."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = replace(installation, gateway_port=other.getsockname()[1])
        with pytest.raises(ConflictError, match="NANOTASKS_GATEWAY_PORT"):
            open_listener(taken)


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::"])
def test_strangers_are_not_let_in_without_a_secret(installation: Settings, host: str) -> None:
    """Listening beyond this machine needs a webhook secret."""
    with pytest.raises(ConfigError, match="NANOTASKS_WEBHOOK_SECRET"):
        open_listener(replace(installation, gateway_host=host, webhook_secret="", gateway_port=0))


def test_an_address_of_another_machine_is_explained(installation: Settings) -> None:
    """An address that is not ours, or none at all, names the settings."""
    for wrong in ({"gateway_host": "203.0.113.7"}, {"gateway_host": "no such host"}, {"gateway_port": 99999}):
        with pytest.raises(ConfigError, match="NANOTASKS_GATEWAY_HOST and NANOTASKS_GATEWAY_PORT"):
            open_listener(replace(installation, **wrong))
