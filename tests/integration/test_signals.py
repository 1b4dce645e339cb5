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
    assert 0 < broker.ttl("nanotasks:bell:route:file|room") <= 5


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
            signals.ring("route", "file", "child")
            status = 0 if signals.flush(5) else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(queued(broker, "inbound")) == 2


def test_the_queue_of_a_host_that_is_down_is_emptied(broker: redis.Redis) -> None:
    """Signals to a dead host do not pile up."""
    signals.ring("wake", "s1", "gone")
    assert signals.flush(5)
    signals.forget_host("gone")
    assert queued(broker, "host.gone") == []
