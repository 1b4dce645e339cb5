"""The topology, on one page: the broker, the queues, every task, who sends it where, and the beat schedule.

    queue            consumed by              carries
    inbound          every worker             intake.route
    default          every worker             sweep.* ticks: work on the central database only
    host.<host_id>   that host's workers      intake.append, wake.session, deliver.*, schedule.project,
                                              sweep.containers: work on that host's files, agents and sockets
    canary.<worker>  that worker              worker.canary, by which it notices that it consumes no more

A task is a signal that says "look", with ids only. Every one is idempotent, acknowledged late, expires, and may be
lost, doubled, delayed or reordered: the rows it points to are claimed in a database, and the sweeps send again what
was lost. There are no results, no canvas, no countdowns, and `revoke` means nothing.

Not to be changed lightly: a visibility timeout above the hard time limit (or a long task starts twice), prefetch 1
with late acknowledgement (or a killed child takes waiting signals along), and no cancelling of tasks when the
connection is lost (they are idempotent and short, and killing them costs more than it saves).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection, Exchange, Queue

from nanotasks import logs
from nanotasks.errors import NanotasksError
from nanotasks.paths import socket_path
from nanotasks.settings import Settings, settings

_log = logs.get("tasks")

INBOUND = "inbound"
DEFAULT = "default"

TASK_MODULES = (
    "nanotasks.intake.tasks",
    "nanotasks.wake.tasks",
    "nanotasks.deliver.tasks",
    "nanotasks.schedule.tasks",
    "nanotasks.sweep.tasks",
)

SOFT_TIME_LIMIT_S = 90
HARD_TIME_LIMIT_S = 120
VISIBILITY_TIMEOUT_S = 180
RECONNECT_MAX_S = 2
CLOCK_EVERY_S = 60.0
CLOCK_AGAIN_S = 5.0


def host_queue(host_id: str) -> str:
    """The queue that only the workers of one host consume."""
    return f"host.{host_id}"


@dataclass(frozen=True)
class Message:
    """One Celery message: a task, its arguments, its queue; `task_id` and `retries` where it is a later attempt."""

    task: str
    args: tuple[Any, ...]
    queue: str
    task_id: str | None = None
    retries: int = 0


def _route(channel_type: str, platform_id: str) -> Message:
    return Message("intake.route", (channel_type, platform_id), INBOUND)


def _append(session_id: str, host_id: str) -> Message:
    return Message("intake.append", (session_id,), host_queue(host_id))


def _wake(session_id: str, host_id: str) -> Message:
    return Message("wake.session", (session_id,), host_queue(host_id))


def _deliver(session_id: str, host_id: str) -> Message:
    return Message("deliver.session", (session_id,), host_queue(host_id))


def _attempt(delivery_id: str, host_id: str, number: int) -> Message:
    # One task id per delivery and a growing count of retries: Flower shows one line with its retries.
    return Message("deliver.attempt", (delivery_id, number), host_queue(host_id), delivery_id, max(0, number - 1))


def _project(session_id: str, host_id: str) -> Message:
    return Message("schedule.project", (session_id,), host_queue(host_id))


def _containers(host_id: str) -> Message:
    return Message("sweep.containers", (host_id,), host_queue(host_id))


def _canary(worker: str) -> Message:
    return Message("worker.canary", (worker,), canary_queue(worker).name)


# kind of signal -> (ids) -> message
SIGNALS: dict[str, Callable[..., Message]] = {
    "route": _route,
    "append": _append,
    "wake": _wake,
    "deliver": _deliver,
    "attempt": _attempt,
    "project": _project,
    "containers": _containers,
    "canary": _canary,
}


def canary_queue(worker: str) -> Queue:
    """A queue of one worker's own, gone some minutes after the worker."""
    name = f"canary.{worker}"
    return Queue(name, Exchange(DEFAULT, type="direct"), routing_key=name, expires=600)


def queues(config: Settings, worker: str) -> list[Queue]:
    """What a worker with that node name consumes."""
    direct = Exchange(DEFAULT, type="direct")
    names = (INBOUND, DEFAULT, host_queue(config.host_id))
    return [*(Queue(name, direct, routing_key=name) for name in names), canary_queue(worker)]


def broker_url(config: Settings) -> str:
    """The broker's URL: the configured Redis, or the private one of `nanotasks up` on its Unix socket."""
    if not config.redis_url:
        return f"redis+socket://{socket_path(config, 'redis.sock')}"
    scheme, found, rest = config.redis_url.partition("://")
    aliases = {"unix": "redis+socket", "valkey": "redis", "valkeys": "rediss"}
    return f"{aliases.get(scheme, scheme)}{found}{rest}"


def beat_schedule(config: Settings) -> dict[str, dict[str, Any]]:
    """Every tick. A tick is claimed in the central database, so any number of beats does its work once."""
    periods = {
        "sweep.signals": config.sweep_signals_period_s,
        "sweep.due": config.sweep_due_period_s,
        "sweep.containers": config.sweep_containers_period_s,
        "sweep.hosts": config.sweep_hosts_period_s,
        "sweep.figures": config.sweep_figures_period_s,
    }
    return {
        task: {"task": task, "schedule": period, "options": {"queue": DEFAULT, "expires": max(2 * period, 10.0)}}
        for task, period in periods.items()
    }


def configuration(config: Settings) -> dict[str, Any]:
    """Celery's configuration under these settings."""
    return {
        # Messages: JSON only, no results, and nothing that outlives its worth.
        "task_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "task_ignore_result": True,
        "timezone": "UTC",
        # Queues
        "task_default_queue": DEFAULT,
        "task_default_exchange_type": "direct",
        "task_routes": {"intake.route": {"queue": INBOUND}, "sweep.*": {"queue": DEFAULT}},
        "task_annotations": {
            "*": {
                "throws": (NanotasksError,),
                "on_failure": tell_failure,
                "Request": "nanotasks.ops.signal_request:SignalRequest",
            }
        },
        # Reliability
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_soft_time_limit": SOFT_TIME_LIMIT_S,
        "task_time_limit": HARD_TIME_LIMIT_S,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 10.0,
        "worker_concurrency": config.worker_concurrency,
        "worker_max_memory_per_child": 512 * 1024,  # KiB; a leak ends a child between two tasks, not the machine
        "worker_proc_alive_timeout": 30.0,
        # What Flower shows
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        # The broker
        "broker_url": broker_url(config),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 20,  # opened when needed; Flower asks several questions at once, two connections each
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            # A connection that is half open is noticed after a check and its time limit, so within ten seconds.
            "socket_timeout": 5.0,
            "socket_connect_timeout": 3.0,
            "socket_keepalive": True,
            "health_check_interval": 3,
            "client_name": f"nanotasks-{config.host_id}",
        },
        # Beat
        "beat_schedule": beat_schedule(config),
        "beat_scheduler": "nanotasks.ops.beat:TickScheduler",
        "beat_max_loop_interval": 5.0,
        # Logs are this package's own
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def tell_failure(self: Any, exc: Exception, *_details: Any) -> None:
    """Celery's `on_failure` of every task: a known reason is one line in the log, and the sweeps signal again."""
    if isinstance(exc, NanotasksError):
        _log.warning("task_failed", task=self.name, args=list(self.request.args or ()), error=str(exc))


class _Connection(Connection):
    """Kombu's pause between two tries grows to half a minute, for which a worker would sleep on when Redis is back."""

    def ensure_connection(self, *args: Any, **named: Any) -> Any:
        """As Kombu's. A worker that lost its connection calls it with `errback` and `max_retries`, without pauses."""
        pauses = {"interval_start": 1, "interval_step": 1, "interval_max": RECONNECT_MAX_S}
        return super().ensure_connection(*args, **({**pauses, **named} if len(args) <= 2 else named))


class _Messaging(AMQP):
    Connection = _Connection


class _App(Celery):
    """Celery with Redis's clock, the only one that all senders and receivers of messages share.

    Their own may be an hour apart: then every message that is sent with `expires` were too old or everlasting. Redis's
    is read once a minute, over Celery's own connection, and carried on between by the monotonic clock, which nobody
    puts forward or back. While Redis is away that goes on; a process that never reached it has its own clock.
    """

    # Redis's clock minus the monotonic one, and when on the latter it is read anew.
    _ahead_s: float | None = None
    _due_at = 0.0

    def now(self) -> datetime:
        """What Celery adds the seconds of `expires` to, `ops.signal_request` compares, and a beat goes by."""
        if time.monotonic() >= self._due_at:
            self._read_clock()
        return datetime.fromtimestamp(time.time() if self._ahead_s is None else time.monotonic() + self._ahead_s, UTC)

    def _read_clock(self) -> None:
        # No lock, which a fork would inherit as held: who comes meanwhile goes on with what is known, or asks as well.
        self._due_at = time.monotonic() + (0.0 if self._ahead_s is None else CLOCK_AGAIN_S)
        with self.connection_for_write() as connection:
            try:
                with cast(Any, connection.channel()) as channel:
                    seconds, micros = channel.client.time()
            except connection.connection_errors:
                self._due_at = time.monotonic() + CLOCK_AGAIN_S
            else:
                self._ahead_s = seconds + micros / 1e6 - time.monotonic()
                self._due_at = time.monotonic() + CLOCK_EVERY_S


def create(config: Settings) -> Celery:
    """A Celery app under these settings. A process needs only one: `app`."""
    created = _App("nanotasks", include=list(TASK_MODULES), amqp=_Messaging)
    created.conf.update(configuration(config))
    return created


app = create(settings())
