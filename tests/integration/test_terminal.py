"""Terminal chats through a real gateway: the mailbox, several clients, settled messages, crashes, and the client."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from select import select as select_ready
from typing import Any

import pytest
from sqlalchemy import func, select, update

from nanotasks import signals
from nanotasks.central import database
from nanotasks.central.chats import Chat
from nanotasks.central.deliveries import Delivery, MailboxItem
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.channels import terminal
from nanotasks.channels.conformance import outbound
from nanotasks.channels.contract import OutboundFile
from nanotasks.channels.terminal import server
from nanotasks.channels.terminal.protocol import SOCKET
from nanotasks.channels.terminal.sender import TerminalSender
from nanotasks.clock import now_ms
from nanotasks.domain.delivery import lane_of
from nanotasks.errors import ConflictError, DependencyDownError
from nanotasks.gateway.listener import open_listener
from nanotasks.gateway.server import Gateway
from nanotasks.intake.accept import Acceptor
from nanotasks.ops.chat import run_chat
from nanotasks.ops.chat.conversation import NoAnswerError
from nanotasks.paths import socket_path
from nanotasks.settings import Settings
from nanotasks.testing import wait_for

START = "from nanotasks.gateway.server import run; from nanotasks.settings import settings; run(settings())"


class Installation:
    """A gateway, its database, and an agent that a test plays."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.central = database(settings)
        self.sender = TerminalSender(settings)
        self.acceptor = Acceptor(self.central, max_pending=1000, ring=lambda *_chat: None)
        self._gateway: Gateway | None = None
        self._thread = threading.Thread()
        self._prepare()

    @property
    def socket(self) -> Path:
        return socket_path(self.settings, SOCKET)

    def start(self) -> None:
        channels = {"terminal": terminal.ADAPTER}
        listener = open_listener(self.settings)
        self._gateway = Gateway(self.settings, listener, self.acceptor.accept, channels=channels)
        self._thread = threading.Thread(target=self._gateway.run)
        self._thread.start()
        wait_for(self._answers, what="the gateway listens")

    def stop(self) -> None:
        if self._gateway is not None:
            self._gateway.stop()
            self._thread.join()
            self._gateway = None

    def close(self) -> None:
        self.stop()
        self.acceptor.close()
        self.central.close()

    def _answers(self) -> bool:
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def _prepare(self) -> None:
        now = now_ms()
        with self.central.write() as session:
            session.add(AgentGroup(id="ag-1", name="Andy", folder="andy", created_at=now))
            session.add(Chat(id="mg-1", channel_type="terminal", platform_id="team", is_group=1, created_at=now))
            session.flush()
            session.add(AgentSession(id="s-1", agent_group_id="ag-1", route_key="s-1", created_at=now))

    def events(self) -> list[InboundEvent]:
        with self.central.read() as session:
            return list(session.scalars(select(InboundEvent).order_by(InboundEvent.received_at, InboundEvent.id)))

    def route(self, event: InboundEvent, state: str = "appended") -> None:
        """The event has come to the agent."""
        with self.central.write() as session:
            session.execute(update(InboundEvent).where(InboundEvent.id == event.id).values(state="routed"))
            session.add(
                InboundRoute(
                    event_id=event.id,
                    session_id="s-1",
                    agent_group_id="ag-1",
                    trigger=1,
                    inbound_id=event.platform_message_id,
                    state=state,
                    created_at=now_ms(),
                )
            )

    def complete(self, event: InboundEvent, state: str = "completed") -> None:
        with self.central.write() as session:
            session.execute(update(InboundRoute).where(InboundRoute.event_id == event.id).values(state=state))

    def drop(self, event: InboundEvent, reason: str) -> None:
        with self.central.write() as session:
            session.execute(update(InboundEvent).where(InboundEvent.id == event.id).values(state="dropped"))
            session.add(
                Drop(
                    id=f"drop-{event.id}",
                    event_id=event.id,
                    channel_type=event.channel_type,
                    platform_id=event.platform_id,
                    reason=reason,
                    created_at=now_ms(),
                )
            )

    def deliver(self, delivery_id: str, text: str, chat: str = "local", files: tuple[OutboundFile, ...] = ()) -> None:
        """The agent says something: through the ledger and the sender, as a worker does."""
        with self.central.write() as session:
            session.add(
                Delivery(
                    id=delivery_id,
                    session_id="s-1",
                    agent_group_id="ag-1",
                    message_out_id=delivery_id,
                    seq=1,
                    lane=lane_of("s-1", "terminal", chat),
                    kind="chat",
                    channel_type="terminal",
                    platform_id=chat,
                    content="{}",
                    created_at=now_ms(),
                )
            )
        message = outbound(delivery_id, text, platform_id=chat, channel_type="terminal", files=files)
        self.sender.send(message, 5.0)
        with self.central.write() as session:
            session.execute(update(Delivery).where(Delivery.id == delivery_id).values(state="delivered"))

    def unshown(self) -> int:
        with self.central.read() as session:
            count = select(func.count()).select_from(MailboxItem).where(MailboxItem.shown_at.is_(None))
            return session.scalars(count).one()


class Agent(threading.Thread):
    """Answers every message of the terminal with `echo: <text>`, except `/silent`, `/drop` and `/dead`."""

    def __init__(self, installation: Installation) -> None:
        super().__init__()
        self._installation = installation
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.01):
            for event in self._installation.events():
                if event.state == "pending":
                    self._answer(event)

    def end(self) -> None:
        self._ended.set()
        self.join()

    def _answer(self, event: InboundEvent) -> None:
        text = json.loads(event.content)["text"]
        if text == "/drop":
            self._installation.drop(event, "unknown_sender_strict")
            return
        self._installation.route(event)
        if text == "/silent":
            self._installation.complete(event)
        elif text == "/dead":
            self._installation.complete(event, "dead")
        else:
            self._installation.deliver(f"d-{event.id}", f"echo: {text}", event.platform_id)
            self._installation.complete(event, "answered")


class Client:
    """A client that is written from the description of the frames alone."""

    def __init__(self, path: Path, **hello: Any) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("rb")
        if hello:
            self.send("hello", **hello)

    def send(self, frame_type: str, **fields: Any) -> None:
        self.raw(json.dumps({"type": frame_type, **fields}))

    def raw(self, line: str) -> None:
        self._socket.sendall(line.encode() + b"\n")

    def next(self, frame_type: str) -> dict[str, Any]:
        """The next frame of a type; others on the way are passed over, typing excepted an error fails."""
        for line in self._lines:
            frame: dict[str, Any] = json.loads(line)
            if frame["type"] == frame_type:
                return frame
            assert frame["type"] != "error", frame
        raise AssertionError(f"the gateway hung up before {frame_type}")

    def is_closed(self) -> bool:
        try:
            return self._lines.readline() == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def settings(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings without Redis; this process's signals use them too."""
    shutil.copy(migrated, tmp_path / "central.db")
    made = Settings(
        data_dir=tmp_path,
        runtime_dir=str(tmp_path / "run"),
        redis_url="redis+socket:///nowhere/redis.sock",
        gateway_port=0,
    )
    monkeypatch.setattr(signals, "settings", lambda: made)
    monkeypatch.setattr(signals, "_process", signals._Process())
    return made


@pytest.fixture
def installation(settings: Settings) -> Iterator[Installation]:
    """An installation whose gateway runs."""
    made = Installation(settings)
    made.start()
    yield made
    made.close()


@pytest.fixture
def agent(installation: Installation) -> Iterator[Agent]:
    """An agent that answers."""
    made = Agent(installation)
    made.start()
    yield made
    made.end()


@pytest.fixture
def clients(installation: Installation) -> Iterator[Any]:
    """Opens clients, and closes them at the end."""
    opened: list[Client] = []

    def connect(**hello: Any) -> Client:
        opened.append(Client(installation.socket, **hello))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


def test_a_message_comes_to_the_client_and_counts_once_confirmed(installation: Installation, clients: Any) -> None:
    """A letter has its text, speaker and number, and is unshown until the client acknowledges it."""
    client = clients(chat="local", user="ann")
    assert client.next("welcome") == {"type": "welcome", "chat": "local", "group": False, "waiting": 0}
    installation.deliver("d-1", "hello Ann")
    letter = client.next("message")
    assert (letter["chat"], letter["from"], letter["text"], letter["files"]) == ("local", "Andy", "hello Ann", [])
    assert installation.unshown() == 1
    client.send("ack", items=[letter["item"]])
    wait_for(lambda: installation.unshown() == 0)


def test_what_was_sent_while_nobody_looked_is_shown_on_the_next_connect(
    installation: Installation, clients: Any
) -> None:
    """In order, announced by the welcome, and only once."""
    for number in range(3):
        installation.deliver(f"d-{number}", f"text {number}")
    client = clients(chat="local")
    assert client.next("welcome")["waiting"] == 3
    letters = [client.next("message") for _ in range(3)]
    assert [letter["text"] for letter in letters] == ["text 0", "text 1", "text 2"]
    client.send("ack", items=[letter["item"] for letter in letters])
    client.close()
    wait_for(lambda: installation.unshown() == 0)
    assert clients(chat="local").next("welcome")["waiting"] == 0


def test_a_client_that_dies_before_it_confirms_loses_nothing(installation: Installation, clients: Any) -> None:
    """The next client gets the letter again, under the same number."""
    first = clients(chat="local")
    installation.deliver("d-1", "hello")
    item = first.next("message")["item"]
    first.close()
    second = clients(chat="local")
    assert second.next("message")["item"] == item


def test_every_client_of_a_chat_sees_its_messages_and_no_other(installation: Installation, clients: Any) -> None:
    """A chat is a room; another chat is another room."""
    ann, bob, eve = clients(chat="den"), clients(chat="den"), clients(chat="attic")
    for client in (ann, bob, eve):
        client.next("welcome")
    installation.deliver("d-1", "to the den", "den")
    installation.deliver("d-2", "to the attic", "attic")
    assert ann.next("message")["text"] == bob.next("message")["text"] == "to the den"
    assert eve.next("message")["text"] == "to the attic"


def test_a_slow_client_holds_up_nobody(installation: Installation, clients: Any) -> None:
    """One that never reads and never confirms does not keep the others from their letters."""
    clients(chat="den")
    quick = clients(chat="den")
    quick.next("welcome")
    big = "x" * 200_000
    for number in range(8):
        installation.deliver(f"d-{number}", big, "den")
        client_letter = quick.next("message")
        quick.send("ack", items=[client_letter["item"]])
        assert client_letter["delivery_id"] == f"d-{number}"


def test_files_and_cards_are_shown_as_text(installation: Installation, clients: Any) -> None:
    """A file comes with its size and where it was kept."""
    client = clients(chat="local")
    installation.deliver("d-1", "see", files=(OutboundFile("report.txt", b"12345"),))
    [file] = client.next("message")["files"]
    assert (file["name"], file["size"], file["host"]) == ("report.txt", 5, installation.settings.host_id)
    assert Path(file["path"]).read_bytes() == b"12345"


def test_a_direct_chat_means_the_agent(installation: Installation, clients: Any) -> None:
    """What is said in `local` is a mention by `terminal:<user>` in a chat that is no group."""
    client = clients(user="ann", name="Ann")
    client.send("message", id="m-1", text="hello")
    accepted = client.next("accepted")
    [event] = installation.events()
    assert (accepted["id"], accepted["event_id"], accepted["duplicate"]) == ("m-1", event.id, False)
    assert (event.platform_id, event.is_mention, event.is_group) == ("local", 1, 0)
    assert json.loads(event.content) == {
        "text": "hello",
        "sender": "Ann",
        "senderId": "terminal:ann",
        "senderName": "Ann",
    }


@pytest.mark.parametrize(
    ("text", "mentioned"),
    [("hello", 0), ("@andy hello", 1), ("hi @ANDY!", 1), ("mail@andy.org", 0), ("@andyman", 0), ("(@Andy)", 1)],
)
def test_in_a_group_chat_the_agent_is_meant_by_name(
    installation: Installation, clients: Any, text: str, mentioned: int
) -> None:
    """`@` and a name or folder of an agent group, in any case, as a whole word."""
    client = clients(chat="team")
    assert client.next("welcome")["group"] is True
    client.send("message", text=text)
    client.next("accepted")
    [event] = installation.events()
    assert (event.is_group, event.is_mention) == (1, mentioned)


def test_the_operator_may_speak_elsewhere(installation: Installation, clients: Any) -> None:
    """`to` puts the message into another chat, `reply_to` sends answers back here."""
    client = clients()
    here = {"channel_type": "terminal", "platform_id": "local"}
    client.send("message", text="hi", to={"channel_type": "file", "platform_id": "x"}, reply_to=here, sender_id="bob")
    client.next("accepted")
    [event] = installation.events()
    assert (event.channel_type, event.platform_id, event.is_group) == ("file", "x", None)
    assert json.loads(event.reply_to or "") == ["terminal", "local", None]
    assert json.loads(event.content)["senderId"] == "bob"


def test_one_line_is_a_whole_conversation(installation: Installation, clients: Any, agent: Agent) -> None:
    """Without a greeting the client is `local` in `local`."""
    client = clients()
    client.raw('{"text": "hello"}')
    assert client.next("message")["text"] == "echo: hello"
    assert client.next("settled")["state"] == "answered"


@pytest.mark.parametrize(
    ("text", "state", "reason"),
    [
        ("hello", "answered", None),
        ("/silent", "completed", None),
        ("/drop", "dropped", "unknown_sender_strict"),
        ("/dead", "dead", None),
    ],
)
def test_a_client_hears_what_became_of_its_message(
    installation: Installation, clients: Any, agent: Agent, text: str, state: str, reason: str | None
) -> None:
    """One settled frame, after the replies."""
    client = clients(chat="local")
    client.send("message", id="m-1", text=text)
    settled = client.next("settled")
    assert settled == {"type": "settled", "id": "m-1", "state": state, "reason": reason}


def test_a_message_is_not_settled_while_a_reply_is_on_its_way(installation: Installation, clients: Any) -> None:
    """A completed route with an open delivery into the chat waits for it."""
    client = clients(chat="local")
    client.send("message", id="m-1", text="hello")
    client.next("accepted")
    [event] = installation.events()
    installation.deliver("d-1", "first")
    with installation.central.write() as session:
        session.execute(update(Delivery).values(state="retrying"))
    installation.route(event, "completed")
    client.next("message")
    installation.deliver("d-2", "second")
    with installation.central.write() as session:
        session.execute(update(Delivery).values(state="delivered"))
    assert client.next("message")["text"] == "second"
    assert client.next("settled")["state"] == "completed"


def test_the_same_message_is_taken_once(installation: Installation, clients: Any) -> None:
    """The same id with the same text is the same message, also over another connection."""
    for duplicate in (False, True):
        client = clients(chat="local")
        client.send("message", id="m-1", text="hello")
        assert client.next("accepted")["duplicate"] is duplicate
    assert len(installation.events()) == 1


@pytest.mark.parametrize(
    "line",
    ["nope", "[]", '{"type": "dance"}', '{"text": ""}', '{"text": 5}', '{"text": "x", "id": 7}', "[" * 5000],
)
def test_a_bad_frame_is_answered_and_stops_nothing(installation: Installation, clients: Any, line: str) -> None:
    """The client hears what was wrong, and may go on."""
    client = clients(chat="local")
    client.next("welcome")
    client.raw(line)
    error = json.loads(client._lines.readline())
    assert error["type"] == "error"
    assert error["what"]
    client.send("message", id="m-1", text="hello")
    assert client.next("accepted")["id"] == "m-1"


def test_a_refused_greeting_ends_the_connection(installation: Installation, clients: Any) -> None:
    """What follows it was meant for another chat than the default one."""
    client = clients(chat="bad\nname")
    try:
        client.raw('{"text": "not for local"}')
    except BrokenPipeError:
        pass  # The gateway was quicker.
    assert json.loads(client._lines.readline())["type"] == "error"
    assert client.is_closed()
    assert installation.events() == []


def test_an_endless_line_ends_only_its_own_connection(settings: Settings) -> None:
    """A line over the cap is refused; the gateway and its other clients go on."""
    installation = Installation(replace(settings, max_body_kb=64))
    installation.start()
    try:
        client, other = Client(installation.socket, chat="local"), Client(installation.socket, chat="local")
        client.next("welcome")
        try:
            client.raw("x" * 300_000)
        except ConnectionError:
            pass  # Cut off in the middle of it.
        client.close()
        other.send("message", id="m-1", text="hello")
        assert other.next("accepted")["id"] == "m-1"
        other.close()
    finally:
        installation.close()


def test_the_socket_belongs_to_its_owner_alone(installation: Installation) -> None:
    """Mode 0600, in a directory of mode 0700, at a path that fits."""
    assert installation.socket.stat().st_mode & 0o777 == 0o600
    assert installation.socket.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_that_is_served_is_not_taken(installation: Installation) -> None:
    """A second gateway is told so; the first one's clients notice nothing."""
    with pytest.raises(ConflictError, match="Another gateway"):
        server._take(installation.socket)


def test_a_stopped_gateway_removes_its_socket(installation: Installation) -> None:
    """Whoever calls then learns at once that nobody is there."""
    path = installation.socket
    installation.stop()
    assert not path.exists()


def test_pokes_bring_letters_and_typing_at_once(
    installation: Installation, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis a letter takes milliseconds, and the typing indicator reaches the chat that it is meant for."""
    told = replace(installation.settings, redis_url=redis_url)
    monkeypatch.setattr(signals, "settings", lambda: told)
    monkeypatch.setattr(signals, "_process", signals._Process())
    installation.stop()
    installation.start()
    client = Client(installation.socket, chat="local")
    client.next("welcome")
    delays = []
    for number in range(5):
        started = time.monotonic()
        installation.deliver(f"d-{number}", "hello")
        client.next("message")
        delays.append(time.monotonic() - started)
    installation.sender.set_typing(outbound("d", platform_id="attic").address)
    installation.sender.set_typing(outbound("d", platform_id="local").address)
    assert client.next("typing") == {"type": "typing", "chat": "local"}
    client.close()
    # Without a poke the gateway looks once a second, so this is far from chance.
    assert sorted(delays)[2] < 0.5


def test_a_gateway_that_was_killed_is_replaced(installation: Installation, settings: Settings) -> None:
    """kill -9 leaves a socket behind; the next gateway takes it over, and nothing that was sent is lost."""
    installation.stop()
    process = subprocess.Popen([sys.executable, "-c", START], env=settings.environment())
    wait_for(installation._answers, what="the gateway process listens")
    client = Client(installation.socket, chat="local")
    client.send("message", id="m-1", text="hello")
    client.next("accepted")
    installation.deliver("d-1", "not yet seen")
    client.next("message")
    process.send_signal(signal.SIGKILL)
    process.wait()
    client.close()
    assert installation.socket.exists()
    installation.start()
    client = Client(installation.socket, chat="local")
    assert client.next("message")["text"] == "not yet seen"
    client.send("message", id="m-1", text="hello")
    assert client.next("accepted")["duplicate"] is True
    client.close()


def chat(settings: Settings, lines: str, **options: Any) -> tuple[int, str, str]:
    """Run the client on a pipe: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    code = run_chat(settings, stdin=io.StringIO(lines), stdout=out, stderr=err, **options)
    return code, out.getvalue(), err.getvalue()


def test_a_script_gets_a_reply_for_each_line(installation: Installation, agent: Agent) -> None:
    """Replies on stdout in the order of the lines, nothing else, and 0 at the end of input."""
    assert chat(installation.settings, "one\n\ntwo\nthree") == (0, "echo: one\necho: two\necho: three\n", "")
    wait_for(lambda: installation.unshown() == 0)


def test_a_script_with_nothing_to_say_reads_its_mail(installation: Installation) -> None:
    """What was sent while nobody looked is printed."""
    installation.deliver("d-1", "while you were out")
    assert chat(installation.settings, "") == (0, "while you were out\n", "")


def test_a_message_without_a_reply_is_explained(installation: Installation, agent: Agent) -> None:
    """On stderr; a dropped message is not a failure of the client, a dead one is."""
    code, out, err = chat(installation.settings, "/drop\nhello\n/silent\n")
    assert (code, out) == (0, "echo: hello\n")
    assert "known people" in err
    assert "no reply" in err
    assert chat(installation.settings, "/dead\n")[0] == 1


def test_one_message_may_be_an_argument(installation: Installation, agent: Agent) -> None:
    """`nanotasks chat hello` says that and leaves; `--once` leaves after one line."""
    assert chat(installation.settings, "", message="hello") == (0, "echo: hello\n", "")
    assert chat(installation.settings, "one\ntwo\n", once=True)[1] == "echo: one\n"


def test_patience_ends(installation: Installation) -> None:
    """When nothing comes back the client says so, and the message stays."""
    with pytest.raises(NoAnswerError, match="Nothing came back"):
        chat(installation.settings, "hello\n", patience_s=0.3)
    assert len(installation.events()) == 1


def test_without_a_gateway_the_client_says_how_to_start_one(settings: Settings) -> None:
    """An error with exit code 69."""
    with pytest.raises(DependencyDownError, match="nanotasks up"):
        chat(settings, "hello\n", connect_s=0.2)


def test_a_restarted_gateway_loses_and_doubles_nothing(installation: Installation) -> None:
    """The client comes back by itself, sends again what was not settled, and prints its reply once."""
    result: list[tuple[int, str, str]] = []
    client = threading.Thread(target=lambda: result.append(chat(installation.settings, "hello\n")))
    client.start()
    wait_for(installation.events)
    installation.stop()
    [event] = installation.events()
    installation.route(event)
    installation.deliver("d-1", "echo: hello")
    installation.complete(event, "answered")
    installation.start()
    client.join(10)
    [(code, out, err)] = result
    assert (code, out) == (0, "echo: hello\n")
    assert "trying again" in err
    assert len(installation.events()) == 1


class Screen:
    """A person's terminal: a client on a pseudo-terminal, and what it has printed."""

    def __init__(self, settings: Settings) -> None:
        code = "import sys; from nanotasks.ops.chat import run_chat; from nanotasks.settings import settings; "
        code += "sys.exit(run_chat(settings()))"
        self._master, slave = os.openpty()
        environment = {**settings.environment(), "TERM": "xterm", "PATH": os.environ["PATH"]}
        self.process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=slave, stdout=slave)
        os.close(slave)
        self._text = ""

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> str:
        """Read until `text` is on the screen; everything that has been printed so far."""
        deadline = time.monotonic() + 15
        while text not in self._text:
            assert time.monotonic() < deadline, self._text
            if select_ready([self._master], [], [], 0.1)[0]:
                self._text += os.read(self._master, 65536).decode()
        return self._text

    def close(self) -> int:
        code = self.process.wait(10)
        os.close(self._master)
        return code


def test_a_person_chats_at_a_prompt(installation: Installation, agent: Agent) -> None:
    """Replies appear with their speaker, typed text survives them, what would drive the terminal is shown as text,
    and Ctrl-D leaves."""
    screen = Screen(installation.settings)
    screen.wait_for("Ctrl-D leaves.")
    screen.wait_for("> ")
    screen.type("hello\n")
    assert "\x1b[1mAndy:\x1b[0m echo: hello" in screen.wait_for("echo: hello")
    screen.type("half a sent")
    screen.wait_for("half a sent")
    installation.deliver("d-1", "wait \x1b[2J!")
    assert "\x1b[2J" not in screen.wait_for("wait \\x1b[2J!\r\n> half a sent")
    screen.type("ence\n")
    screen.wait_for("echo: half a sentence")
    screen.type("/drop\n")
    screen.wait_for("Not taken: this chat takes messages from known people only")
    screen.type("\x04")
    assert screen.close() == 0


def test_ctrl_c_ends_the_chat(installation: Installation) -> None:
    """By the signal's own way out, for the caller to decide the exit code."""
    screen = Screen(installation.settings)
    screen.wait_for("> ")
    # Python's readline misses a signal that comes just before it begins to wait for a key.
    while screen.process.poll() is None:
        screen.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert screen.close() != 0
