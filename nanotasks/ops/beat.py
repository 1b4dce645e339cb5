"""`nanotasks beat`: the clock. It sends ticks and keeps no state, so any number of beats is as good as one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from celery.beat import Scheduler, Service

from nanotasks import logs
from nanotasks.celery_app import app
from nanotasks.errors import DependencyDownError
from nanotasks.ops import redis_server
from nanotasks.settings import settings

_log = logs.get("beat")


def run_beat() -> int:
    """Send ticks until SIGTERM or SIGINT; returns the exit code."""
    config = settings()
    logs.configure(config.log_level, config.log_format)
    signal.signal(signal.SIGTERM, _leave)
    try:
        redis_server.require_answer(config)
    except DependencyDownError as error:
        _log.warning("waiting", reason=str(error))
    _service().start()
    return 0


def start_beat_thread() -> None:
    """Send ticks from a thread of this process until it ends."""

    def run() -> None:
        app.set_current()
        _service().start()

    threading.Thread(target=run, name="beat", daemon=True).start()


class TickScheduler(Scheduler):
    """Celery's scheduler in memory: periods are short, and a schedule file would be state beside the databases."""

    def adjust(self, n: float, drift: float = 0.002) -> float:
        """When to wake: Celery's own scheduler wakes a hundredth of a second early and spins until it is time."""
        return n + drift if n and n > 0 else n

    _is_heard = True

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        """Send a tick. Without Redis nothing is sent, which one line tells; the next tick is as good."""
        try:
            sent = super().apply_async(entry, producer, advance, **options)
        except Exception as error:
            if self._is_heard:
                _log.warning("tick_not_sent", task=entry.task, error=str(error).partition("\n")[0])
            self._is_heard = False
            return None
        if not self._is_heard:
            _log.info("ticks_are_sent_again")
        self._is_heard = True
        return sent

    def is_due(self, entry: Any) -> Any:
        """A run of the future was made by a clock that was put back since: then everything is due."""
        now = entry.default_now()
        if entry.last_run_at > now + entry.schedule.run_every:
            ticks: list[Any] = list(self.schedule.values())
            for one in ticks:
                one.last_run_at = min(one.last_run_at, now - one.schedule.run_every)
            self._heap = None
        return super().is_due(entry)


def _service() -> Service:
    return Service(app, scheduler_cls=TickScheduler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
