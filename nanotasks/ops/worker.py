"""`nanotasks worker`: a Celery worker of this host and the host's keeper, under one small supervisor.

    supervisor ─┬─ celery   consumes the queues; its pool children run the tasks
                └─ keeper   heartbeat, watcher, exits, typing, alarm (see `keeper`)

The keeper is a process of its own because the Celery process forks whenever a pool child ends, and an open SQLite
database must not be carried over a fork. SIGTERM lets running tasks end, then exits 0.
"""

from __future__ import annotations

import fcntl
import logging
import os
import warnings
from dataclasses import replace
from typing import Any

from celery import signals as celery_signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state as celery_state

from nanotasks import celery_app, logs, signals
from nanotasks.central import database, figures
from nanotasks.deliver.pool import finish_background
from nanotasks.errors import ConfigError, DependencyDownError
from nanotasks.ops import redis_server
from nanotasks.ops.canary import Canary
from nanotasks.ops.host_identity import host_id_here, stranded
from nanotasks.ops.in_child import in_child
from nanotasks.ops.keeper import run_keeper
from nanotasks.ops.lifeline import Lifeline
from nanotasks.ops.pool import TaskPool
from nanotasks.ops.preload import preload, settle_memory
from nanotasks.ops.supervise import Child, Stage, Supervisor
from nanotasks.paths import runtime_dir
from nanotasks.runtimes.select import decide
from nanotasks.settings import Settings, settings
from nanotasks.sweep.hosts import sign_of_life

_log = logs.get("worker")

_MAX_WORKERS = 100
LOST_PARENT_GRACE_S = 10.0
FINISH_S = 5.0


def run_worker() -> int:
    """Run a worker of this host until it is stopped; returns the exit code."""
    config = settings()
    logs.configure(config.log_level, config.log_format)
    # Once for all processes: two that decide differently could start two agents of one session.
    os.environ.update(in_child(lambda: _prepare(config)).environment())
    settings.cache_clear()
    preload()
    settle_memory(settings().runtime)
    children = [Child("worker", run_celery), Child("keeper", run_keeper)]
    return Supervisor([Stage(children, grace_s=30.0)], pause_s=config.supervise_restart_s).run()


def run_celery(lifeline: Lifeline) -> int:
    """The Celery worker itself; returns its exit code."""
    config = settings()
    logs.configure(config.log_level, config.log_format)
    lifeline.hold(LOST_PARENT_GRACE_S)
    # What Celery says on stdout is no log line, such as "Warm shutdown".
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    for handler in logging.getLogger().handlers:
        handler.addFilter(on_one_line)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root is safe here: messages are JSON only
    name, _lock = _take_name(config)
    app = celery_app.app
    app.conf.task_queues = celery_app.queues(config, name)
    celery_signals.setup_logging.connect(_keep_logging)
    celery_signals.worker_process_shutdown.connect(_finish)
    celery_signals.worker_ready.connect(_tell_ready)
    canary = Canary(name, period_s=config.canary_period_s, silence_s=config.canary_silence_s)
    canary.attach()
    worker = app.Worker(
        hostname=name,
        pool=TaskPool,
        concurrency=config.worker_concurrency,
        queues=[queue.name for queue in app.conf.task_queues],
        optimization="fair",
        task_events=True,
        without_mingle=True,
        without_gossip=True,
        quiet=True,
        loglevel="DEBUG" if config.log_level == "debug" else "WARNING",
    )
    try:
        worker.start()
    except Exception as error:
        if not _was_asked_to_stop():
            raise
        # While Redis is away Celery cannot give back its messages; they are restored without it.
        _log.warning("worker_stopped_without_redis", worker=name, error=repr(error))
        return 0
    _log.info("worker_stopped", worker=name)
    return int(worker.exitcode or 0)


def _was_asked_to_stop() -> bool:
    asked: int | None = celery_state.should_stop
    return asked is not None


def on_one_line(record: logging.LogRecord) -> bool:
    """Celery and kombu tell a lost broker in several lines with a traceback, of which one line says everything."""
    error = record.exc_info[1] if record.exc_info else None
    theirs = record.name.startswith(("celery.worker.", "celery.bootsteps", "kombu."))
    # What their parts trip over while they start anew follows from the lost connection too.
    if theirs and (error is None or record.name == "celery.bootsteps" or _is_lost_connection(error)):
        words = [record.getMessage(), str(error) if error else ""]
        record.msg, record.args, record.exc_info = " ".join(" ".join(words).split()), (), None
    return True


def _is_lost_connection(error: BaseException) -> bool:
    """The client's own classes are built like the built-in ones, and named like them, without being theirs."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint({"OSError", "ConnectionError", "TimeoutError", "OperationalError"})


def _prepare(config: Settings) -> Settings:
    """In a child: refuse a database that these workers cannot use, say what is away, choose host id and runtime."""
    from nanotasks.central.migrate import require_usable

    try:
        require_usable(database(config))
        config = replace(config, host_id=host_id_here(database(config), config))
        # Before the first task: a group without a host gets one only of those that are up.
        sign_of_life(database(config), config)
        notice = stranded(database(config), config)
        if notice:
            _log.warning("agents_of_another_host", notice=notice)
        redis_server.require_answer(config)
    except DependencyDownError as error:
        # It may be away for now: the worker waits for it, and the tasks try again.
        _log.warning("waiting", reason=str(error))
    chosen = decide(config, lambda line: _log.info("image", line=line))
    if chosen.notice:
        _log.warning("runtime", notice=chosen.notice)
    return replace(config, runtime=chosen.name)


def _take_name(config: Settings) -> tuple[str, int]:
    """The node name of this worker, the first free of the host, held by a lock as long as the process lives."""
    for number in range(1, _MAX_WORKERS):
        handle = os.open(runtime_dir(config) / f"worker-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        return f"worker-{number}@{config.host_id}", handle
    raise ConfigError(f"This host has {_MAX_WORKERS} workers already.", fix="Raise NANOTASKS_WORKER_CONCURRENCY.")


def _keep_logging(**_options: Any) -> None:
    """Logging is configured already; without a receiver Celery would configure it again."""


def _tell_ready(sender: Any, **_options: Any) -> None:
    # A choice that celery_app has made; Celery sets filters of its own when it starts.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    signals.resume(host_id=settings().host_id)
    signals.sweep_now()
    _log.info("worker_ready", worker=sender.hostname, queues=[queue.name for queue in sender.app.conf.task_queues])


def _finish(**_options: Any) -> None:
    """A pool child ends: let its sends end, and its signals leave."""
    finish_background(FINISH_S)
    signals.flush()
    figures.write_notes()
