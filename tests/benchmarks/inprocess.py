"""What one process can do: intake until the rows are readable, delivery of committed rows, sweeps at rest."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nanotasks import logs
from nanotasks.agents.chats import create_chat
from nanotasks.agents.groups import create_group
from nanotasks.agents.wirings import create_wiring
from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.migrate import upgrade
from nanotasks.central.sessions import AgentSession
from nanotasks.channels import registry
from nanotasks.channels.contract import Adapter, Address, Capabilities, InboundMessage, OutboundMessage, Sent
from nanotasks.deliver.service import deliver_session
from nanotasks.intake.accept import Acceptor
from nanotasks.intake.append import append_session
from nanotasks.intake.service import route_chat
from nanotasks.session import SessionFolder
from nanotasks.settings import Settings, load
from nanotasks.sweep.due import due_signals
from nanotasks.sweep.hosts import heartbeat
from nanotasks.sweep.lost import lost_signals
from tests.benchmarks.figures import repeated

PRODUCERS = 16
MESSAGES = 3200
RUNS = 3
SESSIONS = 10
ROWS = 200
HISTORY = 10_000
CHANNEL = "noop"


class _Noop:
    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        return Sent(message.delivery_id)


class _Quiet:
    """Stands for Redis, whose cost is measured elsewhere: rings and pokes go nowhere."""

    def ring(self, kind: str, *ids: Any, force: bool = False) -> None: ...

    def poke(self, topic: str, payload: Any = None) -> None: ...

    def wait_for_token(self, bucket: str, rate_per_s: float, burst: float = 1.0) -> float:
        return 0.0


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure of this module, each on a fresh installation per run."""
    logs.configure("error")
    registry.register(
        Adapter(CHANNEL, lambda _settings: Capabilities(idempotent=True), sender=lambda _settings: _Noop())
    )
    yield "intake_1_agent", repeated((_intake(1) for _ in range(RUNS)), "msg/s", at_least_median=1500.0)
    yield "intake_2_agents", repeated((_intake(2) for _ in range(RUNS)), "msg/s", at_least_median=800.0)
    yield "delivery_10_sessions", repeated((_delivery() for _ in range(RUNS)), "msg/s", at_least_median=1000.0)
    fresh, old = zip(*(_history() for _ in range(RUNS)), strict=True)
    yield "drain_of_20_rows", repeated(fresh, "ms")
    yield "drain_of_20_rows_after_10000", repeated(old, "ms")
    yield "sweep_1000_idle_sessions", repeated((_sweep(1000) for _ in range(RUNS)), "ms CPU", median=5.0)
    yield "sweep_10000_idle_sessions", repeated((_sweep(10_000) for _ in range(RUNS)), "ms CPU", median=10.0)


@dataclass
class _Installation:
    settings: Settings
    db: Database

    def arrange(self, chats: int, agents: int) -> None:
        """Agents that listen to everything in every chat."""
        with self.db.write() as session:
            groups = [create_group(session, f"Agent {number}") for number in range(agents)]
            for number in range(chats):
                chat = create_chat(session, CHANNEL, f"c{number}", unknown_sender_policy="public")
                for group in groups:
                    create_wiring(session, chat, group, {"engage_pattern": "."})


@contextmanager
def _installation() -> Iterator[_Installation]:
    with tempfile.TemporaryDirectory(prefix="nanotasks-bench-") as directory:
        settings = load({"NANOTASKS_DATA_DIR": directory, "NANOTASKS_HOST_ID": "bench"})
        db = Database(settings.central_url)
        upgrade(db)
        heartbeat(db, settings)
        try:
            yield _Installation(settings, db)
        finally:
            db.close()


def _message(chat: str, ident: str) -> InboundMessage:
    content = {"text": f"message {ident}", "sender": "Bench", "senderId": "bench:1"}
    return InboundMessage(Address(CHANNEL, chat), ident, content, "2026-01-01T00:00:00.000Z")


def _intake(agents: int) -> float:
    """Messages per second from the first accept until all stand in the inbound.db files."""
    with _installation() as made:
        made.arrange(PRODUCERS, agents)
        rung = threading.Event()
        acceptor = Acceptor(made.db, max_pending=MESSAGES, ring=lambda *_ids: rung.set())

        def produce(number: int) -> None:
            for count in range(MESSAGES // PRODUCERS):
                acceptor.accept(_message(f"c{number}", f"{number}-{count}"))

        started = time.monotonic()
        producers = [threading.Thread(target=produce, args=(number,)) for number in range(PRODUCERS)]
        for producer in producers:
            producer.start()
        appended = 0
        while appended < MESSAGES * agents:
            rung.wait(1)
            rung.clear()
            appended += sum(_route_and_append(made, f"c{number}") for number in range(PRODUCERS))
        taken = time.monotonic() - started
        for producer in producers:
            producer.join()
        acceptor.close()
        assert appended == MESSAGES * agents
        return MESSAGES / taken


def _route_and_append(made: _Installation, chat: str) -> int:
    routed = route_chat(made.db, made.settings, CHANNEL, chat, capabilities=lambda _type: Capabilities())
    return sum(append_session(made.db, made.settings.data_dir, one).routes for one in routed.touched)


def _sessions_with_rows(made: _Installation, chats: int, rows: int) -> list[tuple[str, SessionFolder]]:
    """Sessions that were routed one message each, whose agent then wrote `rows` answers with the documented SQL."""
    made.arrange(chats, 1)
    acceptor = Acceptor(made.db, max_pending=10, ring=lambda *_ids: None)
    found = []
    for number in range(chats):
        acceptor.accept(_message(f"c{number}", f"first-{number}"))
        routed = route_chat(made.db, made.settings, CHANNEL, f"c{number}", capabilities=lambda _type: Capabilities())
        (session_id,) = routed.touched
        append_session(made.db, made.settings.data_dir, session_id)
        with made.db.read() as session:
            row = session.get_one(AgentSession, session_id)
        folder = SessionFolder.of(made.settings.data_dir, row.agent_group_id, session_id)
        _write_answers(folder, f"c{number}", 0, rows)
        found.append((session_id, folder))
    acceptor.close()
    return found


def _write_answers(folder: SessionFolder, chat: str, begin: int, count: int) -> None:
    connection = sqlite3.connect(folder.outbound_db)
    with connection:
        connection.executemany(
            "INSERT INTO messages_out (id, seq, timestamp, kind, platform_id, channel_type, content)"
            " VALUES (?, ?, datetime('now'), 'chat', ?, ?, ?)",
            [
                (f"m{number}", 2 * number + 3, chat, CHANNEL, '{"text":"answer"}')
                for number in range(begin, begin + count)
            ],
        )
    connection.close()


def _drain(made: _Installation, session_id: str) -> None:
    """Rounds until nothing is signalled any more; one round lasts some seconds at most."""
    while any(kind == "deliver" for kind, *_ in _round(made, session_id)):
        pass


def _round(made: _Installation, session_id: str) -> list[Any]:
    return deliver_session(made.db, made.settings, session_id, bells=_Quiet()).signals


def _delivery() -> float:
    with _installation() as made:
        sessions = _sessions_with_rows(made, SESSIONS, ROWS)
        started = time.monotonic()
        for session_id, _folder in sessions:
            _drain(made, session_id)
        taken = time.monotonic() - started
        _assert_delivered(made, SESSIONS * ROWS)
        return SESSIONS * ROWS / taken


def _assert_delivered(made: _Installation, wanted: int) -> None:
    with sqlite3.connect(made.settings.data_dir / "central.db") as connection:
        (found,) = connection.execute("SELECT count(*) FROM deliveries WHERE state = 'delivered'").fetchone()
    connection.close()
    assert found == wanted, f"{found} of {wanted} were delivered"


def _history() -> tuple[float, float]:
    """Milliseconds of a drain of 20 rows in a young session, and in one with a long history."""
    with _installation() as made:
        ((session_id, folder),) = _sessions_with_rows(made, 1, 20)
        _drain(made, session_id)
        _write_answers(folder, "c0", 20, 20)
        fresh = _timed_drain(made, session_id)
        _write_answers(folder, "c0", 40, HISTORY)
        _drain(made, session_id)
        _write_answers(folder, "c0", HISTORY + 40, 20)
        return fresh, _timed_drain(made, session_id)


def _timed_drain(made: _Installation, session_id: str) -> float:
    started = time.monotonic()
    _drain(made, session_id)
    return (time.monotonic() - started) * 1000


def _sweep(sessions: int) -> float:
    """Milliseconds of CPU time of one pass of the sweeps that look for work, over sessions that have none."""
    with _installation() as made:
        with made.db.write() as session:
            session.add(AgentGroup(id="ag", name="A", folder="a", created_at=1, host_id="bench"))
            session.flush()
            session.add_all(
                AgentSession(id=f"s{number}", agent_group_id="ag", route_key=str(number), created_at=1)
                for number in range(sessions)
            )
        for _warm in range(3):
            _one_sweep(made)
        started = time.process_time()
        _one_sweep(made)
        return (time.process_time() - started) * 1000


def _one_sweep(made: _Installation) -> None:
    assert lost_signals(made.db, made.settings) == []
    assert due_signals(made.db, made.settings) == []
