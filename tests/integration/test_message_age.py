"""The age of a Celery message is told by Redis's clock, whatever the clocks of sender and receiver say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker.state import revoked

from nanotasks import celery_app, signals
from nanotasks.ops.signal_request import SignalRequest
from nanotasks.settings import Settings


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """Celery on a private Redis."""
    made = celery_app.create(Settings(redis_url=redis_url))
    yield made
    made.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(signals.client_url(redis_url)) as made:
        yield made


@pytest.mark.parametrize("shift_s", [-3600.0, 3600.0])
def test_a_message_expires_by_the_clock_of_redis(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, shift_s: float
) -> None:
    """The sender's own clock is an hour off: the message lives its five minutes for everybody else."""
    own = time.time
    monkeypatch.setattr(time, "time", lambda: own() + shift_s)
    app.send_task("intake.append", args=("s1",), queue="host.a", expires=300)
    (text,) = client.lrange("host.a", 0, -1)
    expires = datetime.fromisoformat(json.loads(text)["headers"]["expires"])
    assert abs(expires.timestamp() - own() - 300) < 5


@pytest.mark.parametrize(("left_s", "is_too_old"), [(30, False), (-1, True)])
def test_a_worker_tells_the_age_of_a_message_by_the_clock_of_redis(
    app: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, left_s: int, is_too_old: bool
) -> None:
    """Its own clock is an hour ahead. A later attempt with the same task id is no victim of a message that was late."""
    seconds, _ = client.time()
    monkeypatch.setattr(time, "time", lambda: seconds + 3600.0)
    request = received(app, "d1", datetime.fromtimestamp(seconds + left_s, UTC))
    assert bool(request.maybe_expire()) == is_too_old
    assert "d1" not in revoked


def test_every_task_is_taken_so(app: Celery) -> None:
    """Celery's own request class would compare with the receiver's clock."""
    app.loader.import_default_modules()
    ours = [task for name, task in app.tasks.items() if not name.startswith("celery.")]
    assert ours
    for task in ours:
        assert task.Request == "nanotasks.ops.signal_request:SignalRequest", task.name


def received(app: Celery, task_id: str, expires: datetime) -> SignalRequest:
    """What a worker makes of a message."""
    sent = app.amqp.create_task_message(task_id, "deliver.attempt", ("d1", 1), expires=expires)
    message = SimpleNamespace(
        headers=sent.headers,
        properties={},
        delivery_info={},
        body="",
        payload=sent.body,
        content_type="application/json",
        content_encoding="utf-8",
    )

    @app.task(name="deliver.attempt", shared=False)
    def task(*_ids: Any) -> None: ...

    return SignalRequest(message, app=app, task=task)


def test_a_process_that_never_reached_redis_has_its_own_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not ask at every turn."""
    app = celery_app.create(Settings(redis_url=f"redis+socket://{tmp_path / 'none.sock'}"))
    assert abs(app.now().timestamp() - time.time()) < 1
    monkeypatch.setattr(app, "connection_for_write", lambda: pytest.fail("asked again"))
    assert abs(app.now().timestamp() - time.time()) < 1
