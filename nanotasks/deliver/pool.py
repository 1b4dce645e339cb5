"""The threads in which a process sends: a bounded number of lanes at one time, the others wait their turn.

A task waits a little for its lanes and then leaves the slow ones to go on here, so that a channel that takes half a
minute to fail holds no child of a worker. A lane that overstays its own deadline (a plain function cannot be
stopped) is written off: its place is given to the next one, and the ledger will take its row as overdue.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from math import inf

IDLE_S = 10.0


class Job:
    """One lane at work. `busy_until` is the monotonic time from which it counts as written off."""

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.work = work
        self.busy_until = inf
        self.done: Future[None] = Future()

    def run(self) -> None:
        try:
            self.work(self)
        except BaseException as error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)


class LanePool:
    """At most `size` lanes at one time; threads stay for a while, since a new one costs as much as a send."""

    def __init__(self, size: int) -> None:
        self._size = max(1, size)
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._idle = 0

    def submit(self, work: Callable[[Job], None]) -> Job:
        """Start the work, or queue it behind what is going on."""
        job = Job(work)
        with self._changed:
            self._waiting.append(job)
            if self._idle >= len(self._waiting):
                self._changed.notify()
            elif self._has_room():
                threading.Thread(target=self._work_off, name="lane", daemon=True).start()
        return job

    def has_room(self) -> bool:
        """Whether work that is submitted now would start at once."""
        with self._changed:
            return not self._waiting and self._has_room()

    def finish(self, timeout_s: float) -> bool:
        """Wait until nothing is going on; False when that took longer. For the end of a process."""
        with self._changed:
            pending = [job.done for job in (*self._running, *self._waiting)]
        return not wait(pending, timeout_s).not_done

    def _work_off(self) -> None:
        while (job := self._take()) is not None:
            job.run()
            with self._changed:
                self._running.discard(job)

    def _take(self) -> Job | None:
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._waiting and self._has_room(), IDLE_S)
            self._idle -= 1
            if not self._waiting or not self._has_room():
                return None
            job = self._waiting.popleft()
            self._running.add(job)
            return job

    def _has_room(self) -> bool:
        now = time.monotonic()
        return sum(1 for job in self._running if job.busy_until > now) < self._size


_guard = threading.Lock()
_pool: LanePool | None = None


def process_pool(size: int) -> LanePool:
    """This process's pool, made on first use."""
    global _pool
    with _guard:
        if _pool is None:
            _pool = LanePool(size)
        return _pool


def finish_background(timeout_s: float) -> bool:
    """Wait for the sends that tasks of this process left behind; call it before the process ends."""
    return _pool is None or _pool.finish(timeout_s)


def _start_afresh() -> None:
    global _guard, _pool
    _guard, _pool = threading.Lock(), None


# Threads do not survive a fork, so neither must what counts them.
os.register_at_fork(after_in_child=_start_afresh)
