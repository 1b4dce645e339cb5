"""200 messages while Redis forgets everything or workers are killed: none is lost, none doubled."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from nanotasks.signals import client_url
from nanotasks.testing import wait_for
from tests.installation import Installation, children, installation, named

CHATS = [f"room{number}" for number in range(10)]
ROUNDS = 10
PER_ROUND = 2
MESSAGES = len(CHATS) * ROUNDS * PER_ROUND


@pytest.fixture
def here(tmp_path: Path, redis_url: str) -> Iterator[Installation]:
    with installation(tmp_path, redis_url=redis_url, sweep_signals_period_s="1", resignal_after_s="2") as made:
        made.apply(
            groups=[{"folder": "andy", "name": "Andy"}],
            chats=[{"chat": f"file:{chat}", "unknown_sender_policy": "public"} for chat in CHATS],
            wirings=[{"chat": f"file:{chat}", "group": "andy", "engage_pattern": "."} for chat in CHATS],
        )
        made.start("worker")
        made.start("beat")
        wait_for(lambda: '"worker_ready"' in made.log("worker"), 30, what="the worker")
        yield made


def say_all(here: Installation, between: Callable[[int], None]) -> None:
    for turn in range(ROUNDS):
        here.say(
            [
                {"id": f"{chat}-{turn}-{n}", "platform_id": chat, "sender_id": "ann", "text": f"echo {chat} {turn} {n}"}
                for chat in CHATS
                for n in range(PER_ROUND)
            ]
        )
        between(turn)


def check(here: Installation) -> None:
    """Every message was answered exactly once, and each chat in the order in which it was asked."""
    wait_for(lambda: sum(here.counts(CHATS).values()) >= MESSAGES, 60, every_s=0.1, what="all answers")
    expected = {chat: [f"{chat} {turn} {n}" for turn in range(ROUNDS) for n in range(PER_ROUND)] for chat in CHATS}
    assert {chat: here.heard(chat) for chat in CHATS} == expected
    assert set(Counter(here.counts(CHATS)).values()) == {1}


@pytest.mark.slow
def test_flushall_every_second_loses_and_doubles_nothing(here: Installation) -> None:
    """Redis holds signals only, so forgetting all of them costs latency."""
    stop = threading.Event()

    def forget() -> None:
        client = redis.Redis.from_url(client_url(here.settings.redis_url))
        while not stop.wait(1.0):
            client.flushall()
        client.close()

    forgetting = threading.Thread(target=forget)
    forgetting.start()
    try:
        say_all(here, lambda _turn: None)
        check(here)
    finally:
        stop.set()
        forgetting.join()


@pytest.mark.slow
def test_killing_workers_and_their_children_loses_and_doubles_nothing(here: Installation) -> None:
    """kill -9 of a pool child, of a Celery process, and of a whole worker with all that belongs to it."""
    worker = here.start("worker")

    def kill(turn: int) -> None:
        mains = [pid for pid in named(children(worker.pid), "worker") if children(pid)]
        if turn == 2 and mains:
            os.kill(children(mains[0])[0], signal.SIGKILL)
        if turn == 4 and mains:
            os.kill(mains[0], signal.SIGKILL)
        if turn == 6:
            os.killpg(worker.pid, signal.SIGKILL)

    say_all(here, kill)
    check(here)
