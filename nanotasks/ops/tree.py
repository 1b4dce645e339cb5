"""The process tree below `nanotasks up`: a supervisor in a session of its own, and what it keeps running.

    up ── supervisor ─┬─ redis      only without NANOTASKS_REDIS_URL
                      ├─ worker     Celery and its pool
                      ├─ keeper     heartbeat, watcher, exits, typing, alarm, and beat as a thread
                      └─ gateway

The supervisor is forked first, before anything is opened. While `up` prepares the database it starts Redis and
imports what its children need; it goes on when `up` tells it to. It has a session of its own, so that a Ctrl-C in
the terminal reaches `up` alone, and it stops everything when `up` is gone, however that one ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from nanotasks import logs
from nanotasks.ops import redis_server
from nanotasks.ops.lifeline import Lifeline, die_with_parent
from nanotasks.ops.preload import preload, settle_memory
from nanotasks.ops.process_name import name_process
from nanotasks.ops.supervise import Child, Stage, Supervisor, redirect
from nanotasks.paths import socket_path
from nanotasks.settings import Settings, settings

_log = logs.get("tree")

STOP_GRACE_S = 30.0
_REDIS_START_S = 10.0
_KILLED = 137


class Tree:
    """The processes of one `nanotasks up`, seen from the process that holds the terminal."""

    def __init__(self, pid: int, lifeline: Lifeline, orders: int, log_dir: Path) -> None:
        self._pid = pid
        self._lifeline = lifeline
        self._orders = orders
        self._code: int | None = None
        self.log_dir = log_dir

    @classmethod
    def fork(cls, config: Settings) -> Tree:
        """Fork the supervisor. The caller must have one thread and nothing open."""
        log_dir = config.data_dir / "logs"
        log_dir.mkdir(parents=True, exist_ok=True)
        lifeline = Lifeline()
        orders_read, orders_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(orders_write)
            _supervise(config, lifeline, orders_read, log_dir)
        os.close(orders_read)
        return cls(pid, lifeline, orders_write, log_dir)

    def go(self, environment: dict[str, str]) -> None:
        """Start the children under these settings."""
        os.write(self._orders, json.dumps(environment).encode())
        os.close(self._orders)

    def ended(self) -> int | None:
        """The supervisor's exit code, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def stop(self) -> int:
        """Stop everything and wait for it; the supervisor's exit code."""
        if self.ended() is None:
            os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE_S
        while self.ended() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.ended() is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._code = _KILLED
        self._lifeline.cut()
        return self._code or 0

    def complaint(self) -> str:
        """Why the processes ended by themselves: what a child said last, or how the supervisor ended."""
        for log in sorted(self.log_dir.glob("*.log")):
            last = log.read_text(errors="replace").rstrip().rpartition("\n")[2]
            if last.startswith(f"{log.stem}: "):
                return last
        return f"The supervising process ended with exit code {self._code}."


def _supervise(config: Settings, lifeline: Lifeline, orders: int, log_dir: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        lifeline.give_up_parent_end()
        redirect(log_dir / "supervisor.log")
        name_process("supervisor")
        logs.configure(config.log_level, "json")
        code = _run(config, lifeline, orders, log_dir)
    except BaseException as error:
        _log.error("supervisor_failed", error=repr(error))
    finally:
        os._exit(code)


def _run(config: Settings, lifeline: Lifeline, orders: int, log_dir: Path) -> int:
    socket_file = None if config.redis_url else socket_path(config, "redis.sock")
    redis = Stage([Child("redis", _become_redis(socket_file))] if socket_file else [], grace_s=5.0)
    work = Stage(
        [Child("worker", _worker), Child("keeper", _keeper), Child("gateway", _gateway)],
        grace_s=15.0,
        after_stop=stop_agents,
    )
    supervisor = Supervisor([redis, work], pause_s=config.supervise_restart_s, log_dir=log_dir, parent=lifeline)
    supervisor.begin(redis)
    preload(gateway=True)
    environment = _wait_for_orders(orders)
    if environment is None:
        supervisor.stop()
        return 0
    os.environ.update(environment)
    settings.cache_clear()
    if socket_file:
        _wait_for_socket(socket_file)
    settle_memory(settings().runtime)
    return supervisor.run()


def _wait_for_orders(orders: int) -> dict[str, str] | None:
    with os.fdopen(orders, "rb") as pipe:
        text = pipe.read()
    return dict(json.loads(text)) if text else None


def _wait_for_socket(path: Path) -> None:
    deadline = time.monotonic() + _REDIS_START_S
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.005)
    _log.warning("redis_is_slow", path=str(path))


def _become_redis(path: Path | None) -> Callable[[Lifeline], int]:
    def run(_lifeline: Lifeline) -> int:
        assert path is not None
        die_with_parent()
        command = redis_server.command(redis_server.find_binary(), path)
        os.execv(command[0], command)

    return run


def _worker(lifeline: Lifeline) -> int:
    from nanotasks.ops.worker import run_celery

    return run_celery(lifeline)


def _keeper(lifeline: Lifeline) -> int:
    from nanotasks.ops.keeper import run_keeper

    return run_keeper(lifeline, beat=True)


def _gateway(lifeline: Lifeline) -> int:
    from nanotasks.gateway import server

    config = settings()
    logs.configure(config.log_level, config.log_format)
    lifeline.hold(10.0)
    server.run(config)
    return 0


def stop_agents() -> None:
    """Stop every agent of this host. What they were at work on is taken up by the next start."""
    from concurrent.futures import ThreadPoolExecutor

    from nanotasks.wake.instances import live_on
    from nanotasks.wake.local import this_host
    from nanotasks.wake.service import park

    here = this_host(settings())
    recorded = {one.session_id for one in live_on(here.db, here.host_id)}
    with ThreadPoolExecutor(8) as pool:
        parked = [pool.submit(park, here, one, "shutdown", wait_s=1.0) for one in recorded]
    for trouble in filter(None, (one.exception() for one in parked)):
        _log.warning("agent_not_stopped", error=str(trouble))
    for stranger in here.runtime.list():
        here.runtime.stop(stranger.session_id, here.settings.container_stop_grace_s, "shutdown")
