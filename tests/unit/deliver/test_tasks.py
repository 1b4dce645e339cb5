"""Delivery tasks as Celery's worker takes them from the queue."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from kombu import Connection
from kombu.simple import SimpleQueue

from nanotasks.celery_app import app
from nanotasks.deliver.tasks import deliver_attempt
from nanotasks.ids import new_id


@pytest.fixture
def queue() -> Iterator[SimpleQueue]:
    """A queue in memory."""
    with Connection("memory://") as connection, connection.SimpleQueue(new_id("queue")) as made:
        yield made


def received(queue: SimpleQueue, delivery_id: str, number: int, expires: datetime) -> Request:
    """A message of `deliver.attempt`, sent and taken as a worker takes it."""
    with app.amqp.Producer(queue.channel) as producer:
        deliver_attempt.apply_async(
            (delivery_id, number), task_id=delivery_id, expires=expires, producer=producer, queue=queue.queue
        )
    message = queue.get(timeout=5)
    return symbol_by_name(deliver_attempt.Request)(message, app=app, task=deliver_attempt, on_ack=message.ack_log_error)


def test_an_attempt_that_expired_in_the_queue_takes_no_later_one_along(queue: SimpleQueue) -> None:
    """All attempts of a delivery have one task id, and Celery drops for hours what it remembers as revoked."""
    delivery_id, now = new_id("dlv"), datetime.now(UTC)
    assert received(queue, delivery_id, 2, now - timedelta(seconds=1)).revoked()
    assert not received(queue, delivery_id, 3, now + timedelta(minutes=5)).revoked()
