"""Agents as child processes: no isolation, but the same guarantees of life, uniqueness, limits and logs.

A small launcher (`launcher.py`) holds each agent; a lock file per session (`records.py`) is the proof that it
lives. Nothing here is kept in memory: any worker of the host can find, stop or watch what another one started.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nanotasks import logs
from nanotasks.clock import now_ms
from nanotasks.owners import process_start_time
from nanotasks.runtimes.contract import (
    AlreadyRunningError,
    Exit,
    Running,
    RuntimeDownError,
    StartFailedError,
    StartSpec,
)
from nanotasks.runtimes.exits import describe_exit
from nanotasks.runtimes.records import Record, Registry

log = logs.get(__name__)

# Agents yield to the workers and the gateway of the same machine.
NICE = 5
# RLIMIT_NPROC counts every task of the user, so an agent's share leaves room for what the others start later.
NPROC_HEADROOM = 4
WATCH_PERIOD_S = 0.2
REPORT_AGAIN_S = 5.0
RECORD_PATIENCE_S = 2.0
KILL_PATIENCE_S = 10.0
# Everything else of the worker's environment stays behind: it holds the database's and the broker's passwords.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "TMPDIR")

_LAUNCH = "import sys; sys.path.append(sys.argv[1]); import launcher; launcher.main()"


class ProcessRuntime:
    """Runs agents as child processes of a launcher, on this machine, as this user."""

    name = "process"
    isolates = False

    def __init__(self, data_dir: Path, *, start_timeout_s: float = 30.0) -> None:
        self._registry = Registry(data_dir / "run" / "agents")
        self._logs = data_dir / "logs" / "agents"
        self._start_timeout_s = start_timeout_s

    def start(self, spec: StartSpec) -> Running:
        """Start the session's agent. Raises `AlreadyRunningError` (adopt it) or `StartFailedError`."""
        if (running := self.find(spec.session_id)) is not None:
            raise AlreadyRunningError(running)
        for folder in (self._registry.folder, self._logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        started_ms = now_ms()
        word, *rest = self._launch(self._order(spec, started_ms)).split(maxsplit=1)
        if word == "ok":
            pid, pid_start = (int(part) for part in rest[0].split())
            runtime_id = f"{pid}:{pid_start}"
            return Running(spec.session_id, spec.instance_id, spec.epoch, runtime_id, started_ms, pid, pid_start)
        if word == "busy" and (running := self.find(spec.session_id)) is not None:
            raise AlreadyRunningError(running)
        raise StartFailedError("The agent's process could not be started.", why=" ".join(rest) or word)

    def _order(self, spec: StartSpec, started_ms: int) -> bytes:
        record = {
            "session": spec.session_id,
            "instance": spec.instance_id,
            "epoch": spec.epoch,
            "started_ms": started_ms,
        }
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return marshal.dumps(
            {
                "lock": str(self._registry.path(spec.session_id)),
                "record": json.dumps(record),
                "log": str(self._log_path(spec.session_id)),
                "log_bytes": spec.limits.log_kb * 1024,
                "argv": [sys.executable, *spec.command[1:]],
                "env": {**environment, **spec.environment},
                "cwd": spec.working_dir,
                "memory_bytes": spec.limits.memory_mb * 1024 * 1024,
                "nofile": spec.limits.nofile,
                "processes": spec.limits.pids * NPROC_HEADROOM,
                "nice": NICE,
            }
        )

    def _launch(self, order: bytes) -> str:
        """Run the launcher and return its report."""
        arguments = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(Path(__file__).parent)]
        try:
            done = subprocess.run(
                arguments,
                input=order,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={},  # the worker's has secrets, and the agent can see its parent's
                timeout=self._start_timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"failed no answer from the launcher within {self._start_timeout_s:g} s"
        return done.stdout.decode(errors="replace").strip() or "failed the launcher ended without an answer"

    def find(self, session_id: str) -> Running | None:
        """The session's live agent; waits a moment for one that is just being launched or just ending."""
        give_up = time.monotonic() + RECORD_PATIENCE_S
        while self._registry.is_locked(session_id):
            record = self._registry.read(session_id)
            if record is not None and record.current:
                return record.running
            if time.monotonic() > give_up:
                if record is None:
                    raise RuntimeDownError(f"The lock of {session_id} is held by an unknown process.")
                if record.launcher_lives:
                    return record.running
                self._kill_holders(session_id)
            time.sleep(0.005)
        return None

    def is_alive(self, session_id: str) -> bool:
        """Whether the session's lock is held."""
        return self._registry.is_locked(session_id)

    def list(self) -> list[Running]:
        """Every live agent of this installation on this host, but for those whose lock says nothing of its holder."""
        found = []
        for session_id in self._registry.sessions():
            try:
                found.append(self.find(session_id))
            except RuntimeDownError as error:
                log.warning("agent_unknown", session=session_id, error=str(error))
        return [running for running in found if running is not None]

    def stop(self, session_id: str, grace_s: float, reason: str) -> Exit | None:
        """SIGTERM to the agent's group, SIGKILL after the grace; returns once its lock is free."""
        running = self.find(session_id)
        if running is None:
            return None
        self._signal(running, signal.SIGTERM)
        if not self._wait_until_free(session_id, grace_s):
            self._signal(running, signal.SIGKILL)
            if not self._wait_until_free(session_id, KILL_PATIENCE_S):
                self._kill_holders(session_id)
        record = self._registry.read(session_id)
        self._registry.remove(session_id, running.instance_id)
        return Exit(session_id, running.instance_id, _exit_code(record), f"stopped: {reason}")

    def _signal(self, running: Running, number: int) -> None:
        """Signal the agent's group, unless its pid names somebody else by now."""
        if running.pid is None or process_start_time(running.pid) != running.pid_start:
            return
        try:
            os.killpg(running.pid, number)
        except ProcessLookupError:
            pass

    def _kill_holders(self, session_id: str) -> None:
        """The last resort: end a launcher that hangs, or what an agent left behind when its launcher was killed."""
        for pid in self._registry.holders(session_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not self._wait_until_free(session_id, KILL_PATIENCE_S):
            raise RuntimeDownError(f"The agent of {session_id} cannot be stopped.", why="Its process does not end.")

    def _wait_until_free(self, session_id: str, timeout_s: float) -> bool:
        """Wait for the launcher's end by its pidfd, and at most `timeout_s`; whether the lock is free."""
        record = self._registry.read(session_id)
        try:
            ended = os.pidfd_open(record.launcher) if record is not None else None
        except ProcessLookupError:
            ended = None
        give_up = time.monotonic() + timeout_s
        try:
            while self._registry.is_locked(session_id) and (left := give_up - time.monotonic()) > 0:
                if ended is None:
                    time.sleep(min(left, 0.005))
                else:
                    select.select([ended], [], [], min(left, 0.05))
        finally:
            if ended is not None:
                os.close(ended)
        return not self._registry.is_locked(session_id)

    def last_exit(self, session_id: str, instance_id: str) -> Exit | None:
        """By the lock file, which stays until a watcher has reported the exit."""
        record = self._registry.read(session_id)
        if record is None or record.running.instance_id != instance_id or self._registry.is_locked(session_id):
            return None
        return self._exit(record)

    def last_log(self, session_id: str, lines: int = 20) -> str:
        """The end of the agent's log."""
        try:
            with self._log_path(session_id).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 16384))
                return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def _log_path(self, session_id: str) -> Path:
        return self._logs / f"{session_id}.log"

    def close(self) -> None:
        """Nothing to close: nothing is kept open."""

    def watch(self, on_exit: Callable[[Exit], None], stop: threading.Event) -> None:
        """Report exits within milliseconds by pidfd; agents that others start are noticed within `WATCH_PERIOD_S`."""
        watched: dict[int, str] = {}
        postponed: dict[str, float] = {}
        poll = select.poll()
        try:
            while not stop.is_set():
                for session_id in set(self._registry.sessions()) - set(watched.values()):
                    ended = self._open(session_id)
                    if ended is not None:
                        watched[ended] = session_id
                        poll.register(ended, select.POLLIN)
                    elif not self._registry.is_locked(session_id) and postponed.get(session_id, 0) < time.monotonic():
                        if self._report(session_id, on_exit):
                            postponed.pop(session_id, None)
                        else:
                            postponed[session_id] = time.monotonic() + REPORT_AGAIN_S
                for ended, _event in poll.poll(math.ceil(WATCH_PERIOD_S * 1000)):
                    poll.unregister(ended)
                    os.close(ended)
                    del watched[ended]
        finally:
            for ended in watched:
                os.close(ended)

    def _open(self, session_id: str) -> int | None:
        """A pidfd of the session's launcher while it lives."""
        record = self._registry.read(session_id)
        if record is None or not self._registry.is_locked(session_id):
            return None
        try:
            ended = os.pidfd_open(record.launcher)
        except ProcessLookupError:
            return None
        if process_start_time(record.launcher) != record.launcher_start:
            os.close(ended)
            return None
        return ended

    def _report(self, session_id: str, on_exit: Callable[[Exit], None]) -> bool:
        """Tell of an exit, then forget it; False when the report failed and is due again."""
        record = self._registry.read(session_id)
        if record is None:
            self._registry.remove(session_id, None)
            return True
        instance_id = record.running.instance_id
        try:
            on_exit(self._exit(record))
        except Exception:
            log.exception("exit_report_failed", session=session_id, instance=instance_id)
            return False
        self._registry.remove(session_id, instance_id)
        return True

    def _exit(self, record: Record) -> Exit:
        session_id, code = record.running.session_id, _exit_code(record)
        reason = describe_exit(code, log=self.last_log(session_id, 5))
        return Exit(session_id, record.running.instance_id, code, reason)


def _exit_code(record: Record | None) -> int | None:
    if record is None or record.code is None:
        return None
    return record.code if record.code >= 0 else 128 - record.code
