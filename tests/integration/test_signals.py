"""Bells, pokes and rate limits on a real Redis, and what they do when it is away."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from nanotasks import celery_app, signals
from nanotasks.errors import DependencyDownError
from nanotasks.settings import Settings
from nanotasks.testing import wait_for


@pytest.fixture
def broker(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """This process's signals go to a private Redis; a client of the same."""
    use(Settings(redis_url=redis_url), monkeypatch)
    client = redis.Redis.from_url(signals.client_url(redis_url))
    yield client
    signals.flush(2)
    client.close()


def use(config: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "settings", lambda: config)
    monkeypatch.setattr(celery_app, "app", celery_app.create(config))
    monkeypatch.setattr(signals, "_process", signals._Process())


@pytest.fixture(autouse=True)
def nothing_left_to_send(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that rang without a Redis must not ring in the next one's. (Ends before the patches do.)"""
    yield
    signals._sender()._keep_s = -1.0


def queued(client: redis.Redis, queue: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in client.lrange(queue, 0, -1)]


def test_a_bell_that_rings_already_sends_nothing(broker: redis.Redis) -> None:
    """Many messages to one chat are one signal until somebody looks."""
    for _ in range(5):
        signals.ring("route", "file", "room")
        assert signals.flush(5)
    assert len(queued(broker, "inbound")) == 1
    assert 0 < broker.pttl("nanotasks:bell:route:inbound") <= 1000


def test_an_answered_bell_rings_again(broker: redis.Redis) -> None:
    """What is committed after the task began to look is signalled anew."""
    signals.ring("wake", "s1", "a")
    assert signals.flush(5)
    signals.answered("wake", "s1")
    signals.ring("wake", "s1", "a")
    assert signals.flush(5)
    assert len(queued(broker, "host.a")) == 2


def test_a_sweep_does_not_ask_the_bell(broker: redis.Redis) -> None:
    """A bell whose signal was lost does not keep the sweep from sending it again."""
    signals.ring("deliver", "s1", "a")
    assert signals.flush(5)
    signals.ring("deliver", "s1", "a", force=True)
    assert signals.flush(5)
    assert len(queued(broker, "host.a")) == 2


def test_a_signal_carries_ids_only_and_expires(broker: redis.Redis) -> None:
    """The message says which task, which ids and until when; a later attempt keeps the delivery's task id."""
    signals.ring("attempt", "d1", "a", 3)
    assert signals.flush(5)
    (message,) = queued(broker, "host.a")
    headers = message["headers"]
    assert (headers["task"], headers["id"], headers["retries"]) == ("deliver.attempt", "d1", 2)
    assert headers["argsrepr"] == "('d1', 3)"
    assert headers["expires"] and headers["eta"] is None and headers["ignore_result"]


def test_ringing_never_waits_for_redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Redis, a ring, a poke and an answer return at once, and readiness says so."""
    use(Settings(redis_url=f"redis+socket://{tmp_path}/none.sock"), monkeypatch)
    began = time.monotonic()
    signals.ring("route", "file", "room")
    signals.poke("chat", {"n": 1})
    signals.answered("route", "file", "room")
    assert signals.wait_for_token("webhook", 1.0) == 0.0
    assert not signals.redis_ok()
    assert time.monotonic() - began < 1.0


def test_what_was_rung_while_redis_was_away_leaves_when_it_is_back(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of Redis costs latency only."""
    link = tmp_path / "r.sock"
    use(Settings(redis_url=f"redis+socket://{link}"), monkeypatch)
    signals.ring("route", "file", "room")
    link.symlink_to(redis_url.removeprefix("redis+socket://"))
    assert signals.flush(10)
    client = redis.Redis.from_url(signals.client_url(redis_url))
    assert len(queued(client, "inbound")) == 1
    client.close()


def test_a_failed_send_takes_the_bell_off(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bell that hangs without a signal under way would silence its chat."""

    def broken(*_args: Any, **_options: Any) -> None:
        raise ValueError("cannot be sent")

    monkeypatch.setattr(celery_app.app, "send_task", broken)
    signals.ring("route", "file", "room")
    assert signals.flush(5)
    assert broker.keys("nanotasks:bell:*") == []
    assert signals.counts().failed == 1


def test_listeners_hear_pokes(broker: redis.Redis) -> None:
    """A listener first looks at its rows, then hears each poke with its payload."""
    stop = threading.Event()
    heard: list[tuple[str, dict[str, Any]]] = []

    def collect() -> None:
        for item in signals.listen(["chat"], stop):
            heard.append(item)

    thread = threading.Thread(target=collect)
    thread.start()
    wait_for(lambda: ("chat", {}) in heard, what="the first look")
    signals.poke("chat", {"n": 1})
    wait_for(lambda: ("chat", {"n": 1}) in heard, what="the poke")
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_listener_survives_a_broken_connection(broker: redis.Redis) -> None:
    """After a broken connection the listener is told to look, and hears again."""
    stop = threading.Event()
    heard: list[tuple[str, dict[str, Any]]] = []

    def collect() -> None:
        for item in signals.listen(["chat"], stop):
            heard.append(item)

    thread = threading.Thread(target=collect)
    thread.start()
    wait_for(lambda: heard.count(("chat", {})) == 1, what="the first look")
    broker.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(lambda: heard.count(("chat", {})) >= 2, what="the second look")
    signals.poke("chat", {"n": 2})
    wait_for(lambda: ("chat", {"n": 2}) in heard, what="the poke after it")
    stop.set()
    thread.join(5)


def test_a_rate_limit_is_shared(broker: redis.Redis) -> None:
    """A bucket grants its burst, then says how long to wait."""
    assert [signals.wait_for_token("webhook", 2.0, 3.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert 0.3 < signals.wait_for_token("webhook", 2.0, 3.0) <= 0.5
    assert signals.wait_for_token("other", 2.0) == 0.0
    assert signals.wait_for_token("unlimited", 0.0) == 0.0


def test_a_forked_child_signals_by_itself(broker: redis.Redis) -> None:
    """A child of a process that has signalled gets its own connection and its own sender."""
    signals.ring("route", "file", "parent")
    assert signals.flush(5)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signals.ring("wake", "s1", "a")
            status = 0 if signals.flush(5) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert (len(queued(broker, "inbound")), len(queued(broker, "host.a"))) == (1, 1)


def test_the_queue_of_a_host_that_is_down_is_emptied(broker: redis.Redis) -> None:
    """Signals to a dead host do not pile up."""
    signals.ring("wake", "s1", "gone")
    assert signals.flush(5)
    signals.ring("deliver", "s1", "gone")
    assert signals.flush(5)
    signals.forget_host("gone")
    assert queued(broker, "host.gone") == []
    assert broker.keys("nanotasks:callers:*") == []


# Signals that one message stands for


def ring_chats(*chats: str) -> None:
    for chat in chats:
        signals.ring("route", "file", chat)
    assert signals.flush(5)


def test_one_message_stands_for_all_that_rang(broker: redis.Redis) -> None:
    """However many chats have something to route, one message is under way; its task works off all of them."""
    ring_chats(*(f"c{number}" for number in range(10)))
    assert len(queued(broker, "inbound")) == 1
    seen: list[str] = []
    signals.answer(lambda _channel, chat: seen.append(chat), "route", "file", "c0", task_id="t1")
    assert sorted(seen) == [f"c{number}" for number in range(10)]
    assert seen[0] == "c0"
    assert broker.keys("nanotasks:*") == []


def test_who_finds_a_bell_rung_that_is_answered_meanwhile_is_signalled(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task took the bell off and read who rang just before this one put itself down: nobody else would come."""
    ring_chats("c0")
    client = signals._redis()
    ask = client.set

    def answered_in_between(*words: Any, **options: Any) -> Any:
        rung = ask(*words, **options)
        monkeypatch.setattr(client, "set", ask)
        signals.answer(lambda _channel, _chat: None, "route", "file", "c0", task_id="t1")
        return rung

    monkeypatch.setattr(client, "set", answered_in_between)
    ring_chats("c1")
    assert len(queued(broker, "inbound")) == 2


def test_who_rang_first_is_first(broker: redis.Redis) -> None:
    """Nobody is overtaken again and again."""
    ring_chats(*(f"c{number}" for number in range(12)))
    ring_chats("c1")
    seen: list[str] = []
    signals.answer(lambda _channel, chat: seen.append(chat), "route", "file", "c0", task_id="t1")
    assert seen == [f"c{number}" for number in range(12)]


def test_a_worker_that_begins_takes_up_what_another_left(broker: redis.Redis) -> None:
    """The message that stood for all of them died with it."""
    ring_chats("c0", "c1")
    for host in ("a", "b"):
        signals.ring("deliver", "s1", host)
        signals.ring("deliver", "s2", host)
    assert signals.flush(5)
    broker.delete("inbound", "host.a", "host.b")
    signals.resume(host_id="a")
    assert signals.flush(5)
    assert [len(queued(broker, queue)) for queue in ("inbound", "host.a", "host.b")] == [1, 1, 0]


def test_who_rings_while_a_task_works_is_signalled_anew_and_may_be_taken_by_it(broker: redis.Redis) -> None:
    """The first of them has a message of its own; the others are taken by whichever task is first."""
    ring_chats("c0")
    seen: list[str] = []

    def work(_channel: str, chat: str) -> None:
        seen.append(chat)
        if chat == "c0":
            ring_chats("c1", "c2")

    signals.answer(work, "route", "file", "c0", task_id="t1")
    assert seen == ["c0", "c2"]
    assert len(queued(broker, "inbound")) == 2
    signals.answer(work, "route", "file", "c1", task_id="t2")
    assert seen == ["c0", "c2", "c1"]


def test_a_task_that_was_killed_goes_on_with_what_it_had_in_hand(broker: redis.Redis) -> None:
    """Its message is sent again under the same id; those it had taken have nobody else."""
    ring_chats("c0", "c1", "c2")

    class Killed(BaseException): ...

    def die(_channel: str, _chat: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        signals.answer(die, "route", "file", "c0", task_id="t1")
    assert broker.keys("nanotasks:callers:*") == []
    seen: list[str] = []
    signals.answer(lambda _channel, chat: seen.append(chat), "route", "file", "c0", task_id="t1")
    assert sorted(seen) == ["c0", "c1", "c2"]


def test_a_caller_whose_work_fails_does_not_hold_up_the_others(broker: redis.Redis) -> None:
    """Its failure is the task's, once all have had their turn."""
    ring_chats("c0", "c1", "c2")
    seen: list[str] = []

    def work(_channel: str, chat: str) -> None:
        seen.append(chat)
        if chat == "c0":
            raise ValueError("poison")

    with pytest.raises(ValueError, match="poison"):
        signals.answer(work, "route", "file", "c0", task_id="t1")
    assert sorted(seen) == ["c0", "c1", "c2"]


def test_without_the_central_database_nobody_else_is_tried(broker: redis.Redis) -> None:
    """Each would wait as long for the same answer; the sweeps signal them again."""
    ring_chats("c0", "c1")
    seen: list[str] = []

    def work(_channel: str, chat: str) -> None:
        seen.append(chat)
        raise DependencyDownError("away")

    with pytest.raises(DependencyDownError):
        signals.answer(work, "route", "file", "c0", task_id="t1")
    assert seen == ["c0"]


def test_a_task_that_has_worked_for_long_leaves_the_rest_to_another(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is short; what is left is signalled again."""
    monkeypatch.setattr(signals, "_ANSWERING_S", 0.0)
    ring_chats(*(f"c{number}" for number in range(20)))
    seen: list[str] = []
    signals.answer(lambda _channel, chat: seen.append(chat), "route", "file", "c0", task_id="t1")
    assert signals.flush(5)
    assert 0 < len(seen) < 20
    assert len(queued(broker, "inbound")) == 2
    rest: list[str] = []
    while len(seen) + len(set(rest) - {"c0"}) < 20:
        signals.answer(lambda _channel, chat: rest.append(chat), "route", "file", "c0", task_id="t2")
    assert {*seen, *rest} == {f"c{number}" for number in range(20)}


def test_an_answer_without_redis_does_its_own_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis may go away between the message and the task."""
    use(Settings(redis_url=f"redis+socket://{tmp_path}/none.sock"), monkeypatch)
    seen: list[str] = []
    signals.answer(lambda _channel, chat: seen.append(chat), "route", "file", "c0", task_id="t1")
    assert seen == ["c0"]
