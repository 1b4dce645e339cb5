"""The worker's pool of child processes: Celery's, but that its end is seen through.

A child says that a task is done and, when it is told to end, waits up to half a minute until the worker has read that.
Celery's own worker reads to the end only what it still knows a job of. When it stops it forgets the jobs that a child
was given but had not yet confirmed, then reads nothing, and waits for a child that waits for it. So here it reads what
its children say until the last one is gone.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from billiard.pool import TERMINATE, WorkersJoined
from celery.concurrency import asynpool, prefork

_LOOK_MS = 50


class ResultHandler(asynpool.ResultHandler):
    """Reads what the children say."""

    _state: int
    fileno_to_outq: dict[int, Any]
    check_timeouts: Callable[[], None] | None
    join_exited_workers: Callable[..., None]
    on_state_change: Callable[[Any], None]

    def on_stop_not_started(self) -> None:
        """Read until every child has ended, and see to it that tasks that take too long do."""
        closed: set[int] = set()
        while self._state != TERMINATE:
            if self.check_timeouts is not None:
                self.check_timeouts()
            poll = select.poll()
            for descriptor in set(self.fileno_to_outq) - closed:
                poll.register(descriptor, select.POLLIN)
            for descriptor, _ in poll.poll(_LOOK_MS):
                if not self._read(descriptor):
                    closed.add(descriptor)
            try:
                self.join_exited_workers(shutdown=True)
            except WorkersJoined:
                return

    def _read(self, descriptor: int) -> bool:
        """One message of a child; False when there will be no more."""
        process = self.fileno_to_outq.get(descriptor)
        if process is None:
            return False
        reader = process.outq._reader
        try:
            # A message that has begun comes to its end: it is written in one piece.
            reader.setblocking(True)
            message = reader.recv()
        except (OSError, EOFError):
            return False
        if message:
            self.on_state_change(message)
        return True


class AsynPool(asynpool.AsynPool):
    """Celery's pool with this reader."""

    ResultHandler = ResultHandler


class TaskPool(prefork.TaskPool):
    """What a worker is told to use."""

    Pool: Any = AsynPool
