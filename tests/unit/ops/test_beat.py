"""The clock: ticks go out at their time, whatever happens to the time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from queue import Empty

import pytest

from nanotasks.celery_app import DEFAULT, beat_schedule, create
from nanotasks.ops.beat import TickScheduler
from nanotasks.settings import Settings

# Periods that no test waits for.
CONFIG = Settings(
    sweep_signals_period_s=600, sweep_due_period_s=600, sweep_containers_period_s=600, sweep_hosts_period_s=600
)


@pytest.fixture
def scheduler(redis_url: str) -> Iterator[TickScheduler]:
    """The scheduler with its ticks."""
    app = create(replace(CONFIG, redis_url=redis_url))
    made = TickScheduler(app)
    yield made
    sent(made)
    app.close()


def sent(scheduler: TickScheduler) -> list[str]:
    """Let the scheduler send what is due now, and take it from the queue."""
    while scheduler.tick() == 0:
        pass
    ticks = []
    with scheduler.app.connection_for_read() as connection, connection.SimpleQueue(DEFAULT) as queue:
        try:
            while True:
                message = queue.get_nowait()
                message.ack()
                ticks.append(message.headers["task"])
        except Empty:
            return sorted(ticks)


def test_every_tick_is_due_when_the_clock_was_put_back(scheduler: TickScheduler) -> None:
    """What was sent by a clock an hour ahead is sent at once by the right one, and then at its period."""
    assert sent(scheduler) == []
    for entry in scheduler.schedule.values():
        entry.last_run_at += timedelta(hours=1)
    assert sent(scheduler) == sorted(beat_schedule(CONFIG))
    assert sent(scheduler) == []
