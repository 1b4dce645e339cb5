"""The canary: a worker that consumes no more, although Redis answers, ends so that it is started again.

A broken connection can leave a worker that looks alive and receives nothing. So a worker sends itself a task through
the same connection as all others; when neither that nor anything else arrives for `silence_s` seconds, during all of
which Redis answered and no task was running, the process ends. The task writes down that it came, for the metrics.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from celery import signals as celery_signals

from nanotasks import logs, signals

EXIT_CODE = 70

_log = logs.get("canary")


class Canary:
    """Watches one Celery worker from a thread of its main process."""

    def __init__(self, worker: str, *, period_s: float, silence_s: float) -> None:
        self._worker = worker
        self._period_s = period_s
        self._silence_s = silence_s
        self._heard = time.monotonic()
        self._stop = threading.Event()

    def attach(self) -> None:
        """Begin once the worker is ready; end when it shuts down."""
        celery_signals.worker_ready.connect(self._start, weak=False)
        celery_signals.task_received.connect(self._hear, weak=False)
        celery_signals.worker_shutting_down.connect(self._end, weak=False)

    def _start(self, **_options: Any) -> None:
        self._heard = time.monotonic()
        threading.Thread(target=self._watch, name="canary", daemon=True).start()

    def _hear(self, **_options: Any) -> None:
        self._heard = time.monotonic()

    def _end(self, **_options: Any) -> None:
        self._stop.set()

    def _watch(self) -> None:
        from celery.worker import state

        while not self._stop.wait(self._period_s):
            answers = signals.redis_ok()
            if state.reserved_requests or not answers:
                self._heard = time.monotonic()
            silent_s = time.monotonic() - self._heard
            if silent_s > self._silence_s:
                _log.critical("worker_consumes_no_more", worker=self._worker, silent_s=round(silent_s))
                os._exit(EXIT_CODE)
            if answers:
                signals.ring("canary", self._worker, force=True)
