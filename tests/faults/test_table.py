"""Faults of the network, the platform, Redis, the database and the clock of processes, one after the other."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from nanotasks.channels.webhook.signature import signed_headers
from nanotasks.testing import wait_for
from tests.faults.cases import conclude, run_traffic
from tests.faults.checker import Checker, Ledger, Said, lines
from tests.faults.platform import Answer, Platform
from tests.faults.world import QUICK, SECRET, World
from tests.installation import children

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Platform().open() as platform, World(tmp_path_factory.mktemp("world"), platform, **QUICK).running() as up:
        yield up


def check(found: list[str]) -> None:
    assert not found, lines(found)


def go_on(pid: int) -> None:
    """Let a stopped process go on, if it was not killed meanwhile."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@contextmanager
def meanwhile(action: Callable[[], None], every_s: float) -> Iterator[None]:
    """Do something again and again while a block runs."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(every_s):
            action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


ANSWERS = {
    "429 with Retry-After": (Answer("refuse", 429, retry_after_s=1), Answer("refuse", 429, retry_after_s=1)),
    "500, three times": (Answer("refuse", 500),) * 3,
    "503": (Answer("refuse", 503),),
    "401, and then let in": (Answer("refuse", 401),),
    "slow": (Answer("slow", seconds=1.0),),
    "arrived, and timed out": (Answer("silent"),),
    "arrived, and the connection was reset": (Answer("reset"),),
}


@pytest.mark.parametrize("answers", ANSWERS.values(), ids=ANSWERS.keys())
def test_the_platform_misbehaves(world: World, answers: tuple[Answer, ...]) -> None:
    """Each reply arrives, in order, twice at most and only where the first send is recorded as uncertain."""
    checker, ledger = Checker(world.here.settings), Ledger()
    (chat,) = world.chats(1)
    for n in range(3):
        said = Said(f"{chat}-{n}", chat, f"echo {chat} word {n}", (f"{chat} word {n}",))
        if n == 1:
            world.platform.script(said.replies[0], *answers)
        world.say(chat, said.message_id, said.text)
        ledger.said.append(said)
    check(conclude(world, checker, ledger))
    sends = [one for one in world.platform.of_chats({chat}) if one.text == f"{chat} word 1"]
    repeated = answers[0].what in {"refuse", "silent", "reset"}
    assert len(sends) == (1 + len(answers) if repeated else 1)
    if answers[0].retry_after_s:
        assert all(later.at - sooner.at >= 0.95 for sooner, later in itertools.pairwise(sends))


def test_a_message_the_platform_refuses_for_good_is_dead_and_the_lane_goes_on(world: World) -> None:
    """A permanent refusal ends one reply; its message ends as dead, and the next is answered."""
    checker, ledger = Checker(world.here.settings), Ledger()
    (chat,) = world.chats(1)
    world.platform.script(f"{chat} bad", Answer("refuse", 400))
    for said in (
        Said(f"{chat}-bad", chat, f"echo {chat} bad", (), "dead"),
        Said(f"{chat}-good", chat, f"echo {chat} good", (f"{chat} good",)),
    ):
        world.say(chat, said.message_id, said.text)
        ledger.said.append(said)
        wait_for(lambda: not checker.unfinished(ledger), 30, what="the end of a message")
    found = [one for one in conclude(world, checker, ledger) if "Sorry" not in one]
    check(found)


def test_redis_forgets_everything_all_the_time(world: World) -> None:
    """FLUSHALL three times a second costs latency."""
    client = redis.Redis(unix_socket_path=world.redis_socket)
    with closing(client), meanwhile(client.flushall, 0.3):
        check(run_traffic(world, lambda _turn: time.sleep(0.1)))


def test_redis_is_killed(world: World) -> None:
    """A new, empty Redis takes its place."""

    def kill(turn: int) -> None:
        if turn in {1, 3}:
            for pid in world.processes("redis"):
                os.kill(pid, signal.SIGKILL)

    check(run_traffic(world, kill))


def test_redis_hangs_for_some_seconds(world: World) -> None:
    """A Redis that is stopped answers nobody; when it goes on, so does everything."""

    def pause(turn: int) -> None:
        if turn == 1:
            (pid,) = world.processes("redis")
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(3.0, go_on, (pid,)).start()

    check(run_traffic(world, pause))


def test_worker_processes_are_stopped_for_longer_than_a_send_may_take(world: World) -> None:
    """Others take over what a stopped process had claimed; when it goes on it changes nothing.

    One that is stopped within a transaction holds up SQLite for as long, and with it everything.
    """

    def stop(turn: int) -> None:
        if turn == 1:
            mains = [pid for pid in world.processes("worker") if children(pid)]
            pid = children(mains[0])[0]
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(5.0, go_on, (pid,)).start()

    check(run_traffic(world, stop))


@pytest.mark.parametrize("part", ["worker", "keeper", "gateway"])
def test_a_part_is_killed_again_and_again(world: World, part: str) -> None:
    """kill -9 of one part with messages in flight, every round."""

    def kill(_turn: int) -> None:
        for pid in world.processes(part):
            os.kill(pid, signal.SIGKILL)

    check(run_traffic(world, kill))


def test_everything_is_killed_at_once(world: World) -> None:
    """As in a power cut, but for the disk; twenty messages are in flight."""
    check(run_traffic(world, lambda turn: world.restart() if turn == 3 else None))


def test_an_agent_is_stopped_in_the_middle_of_its_turn(world: World) -> None:
    """A silent agent is found stuck and stopped; another answers."""
    checker, ledger = Checker(world.here.settings), Ledger()
    (chat,) = world.chats(1)
    said = Said(f"{chat}-slow", chat, f"slow 2 {chat} done", (f"{chat} done",))
    world.say(chat, said.message_id, said.text)
    ledger.said.append(said)
    pid = wait_for(lambda: _agent_of(world, chat), 20, what="the agent")
    os.kill(pid, signal.SIGSTOP)
    check(conclude(world, checker, ledger))


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
def test_the_central_database_is_locked(world: World, seconds: float) -> None:
    """Somebody holds the database for a while: everything waits, and nothing is lost."""

    def lock(turn: int) -> None:
        if turn == 2:
            with closing(sqlite3.connect(world.here.settings.data_dir / "central.db", isolation_level=None)) as db:
                db.execute("PRAGMA busy_timeout = 10000")
                db.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                db.execute("ROLLBACK")

    check(run_traffic(world, lock))


@pytest.mark.parametrize("fault", ["central.commit:*:enospc", "inbound.commit:*:enospc", "central.begin:*:busy"])
def test_the_disk_is_full_for_a_while(world: World, fault: str) -> None:
    """No commit goes through for two seconds."""
    ends: list[threading.Timer] = []

    def fill(turn: int) -> None:
        if turn == 2:
            world.arm(fault)
            ends.append(threading.Timer(2.0, world.clear))
            ends[0].start()

    check(run_traffic(world, fill))


def test_webhooks_come_doubled_and_late(world: World) -> None:
    """A platform that posts each message twice, and all of them again at the end, is answered once each."""
    checker, ledger = Checker(world.here.settings), Ledger()
    chats = world.chats(3)
    everything = [
        Said(f"{chat}-{n}", chat, f"echo {chat} word {n}", (f"{chat} word {n}",)) for n in range(3) for chat in chats
    ]
    for one in everything:
        world.say(one.chat, one.message_id, one.text)
        world.say(one.chat, one.message_id, one.text)
        ledger.said.append(one)
    for one in reversed(everything):
        world.say(one.chat, one.message_id, one.text)
    check(conclude(world, checker, ledger))


def test_forged_and_stale_webhooks_are_refused(world: World) -> None:
    """A wrong signature, a changed body and an old timestamp leave no trace in the intake log."""
    (chat,) = world.chats(1)
    body = json.dumps({"id": "forged", "platform_id": chat, "text": "echo forged", "sender_id": "eve"}).encode()
    for headers, sent in (
        (signed_headers("another secret", time.time(), body), body),
        (signed_headers(SECRET, time.time(), body), body.replace(b"forged", b"FORGED")),
        (signed_headers(SECRET, time.time() - 3600, body), body),
        ({}, body),
    ):
        request = urllib.request.Request(
            f"http://127.0.0.1:{world.here.settings.gateway_port}/webhooks/webhook",
            data=sent,
            headers={"Content-Type": "application/json", **headers},
        )
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=5):
            pass
        assert refused.value.code == 401
        refused.value.close()
    with closing(sqlite3.connect(world.here.settings.data_dir / "central.db")) as db:
        assert db.execute("SELECT count(*) FROM inbound_events WHERE platform_id = ?", (chat,)).fetchone() == (0,)


def test_a_damaged_session_holds_up_no_other(world: World) -> None:
    """One inbound.db is no database: others are answered, its session says what is wrong and, mended, goes on."""
    checker, ledger = Checker(world.here.settings), Ledger()
    (ill,) = world.chats(1)
    first = Said(f"{ill}-0", ill, f"echo {ill} word 0", (f"{ill} word 0",))
    world.say(ill, first.message_id, first.text)
    ledger.said.append(first)
    check(conclude(world, checker, ledger))
    path, session_id = _inbound_of(world, ill)
    kept = path.read_bytes()
    path.write_bytes(b"this is no database, and it is longer than a header of one hundred bytes " * 20)
    second = Said(f"{ill}-1", ill, f"echo {ill} word 1", (f"{ill} word 1",))
    world.say(ill, second.message_id, second.text)
    ledger.said.append(second)
    others, their_ledger = world.chats(2), Ledger()
    for chat in others:
        said = Said(f"{chat}-0", chat, f"echo {chat} well", (f"{chat} well",))
        world.say(chat, said.message_id, said.text)
        their_ledger.said.append(said)
    wait_for(lambda: {f"{chat} well" for chat in others} <= _heard(world, others), 20, what="the others")
    shown = json.loads(world.here.run("sessions", "show", session_id, "--json").stdout)
    assert shown["append_error"] or shown["wake_error"]
    path.write_bytes(kept)
    check(conclude(world, checker, ledger))
    check(conclude(world, checker, their_ledger))


def _heard(world: World, chats: list[str]) -> set[str]:
    return {one.text for one in world.platform.of_chats(set(chats))}


def _inbound_of(world: World, chat: str) -> tuple[Path, str]:
    with closing(sqlite3.connect(world.here.settings.data_dir / "central.db")) as db:
        group_id, session_id = db.execute(
            "SELECT s.agent_group_id, s.id FROM sessions s JOIN messaging_groups m ON m.id = s.messaging_group_id"
            " WHERE m.platform_id = ?",
            (chat,),
        ).fetchone()
    return world.here.settings.data_dir / "sessions" / group_id / session_id / "host" / "inbound.db", session_id


def _agent_of(world: World, chat: str) -> int:
    """The pid of the agent that works on the newest message of a chat, once it has claimed it."""
    with closing(sqlite3.connect(world.here.settings.data_dir / "central.db")) as db:
        found = db.execute(
            "SELECT i.pid, s.agent_group_id, s.id FROM instances i JOIN sessions s ON s.id = i.session_id"
            " JOIN messaging_groups m ON m.id = s.messaging_group_id"
            " WHERE m.platform_id = ? AND i.ended_at IS NULL AND i.pid IS NOT NULL",
            (chat,),
        ).fetchone()
    if not found:
        return 0
    outbound = world.here.settings.data_dir / "sessions" / found[1] / found[2] / "workspace" / "outbound.db"
    with closing(sqlite3.connect(f"file:{outbound}?mode=ro", uri=True)) as db:
        claimed = db.execute("SELECT count(*) FROM processing_ack WHERE status = 'processing'").fetchone()[0]
    return int(found[0]) if claimed else 0
