"""Keeps a handful of child processes running: starts them, starts them again when they end, stops them in order.

The supervisor has one thread and opens nothing: no database, no broker, no Docker. So it may fork at any time, and
its children share the memory of everything that was imported before. A child ends when the supervisor does, however
that one ended (`lifeline`). A child that ends with a configuration error is not started again: the supervisor
stops the others and ends with the same code.

Children are grouped in stages. They are started stage by stage and stopped in the opposite order; between two
stages `Stage.after_stop` runs, in a process of its own.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nanotasks import logs
from nanotasks.errors import ConfigError, NanotasksError
from nanotasks.ops.lifeline import Lifeline
from nanotasks.ops.process_name import name_process

_log = logs.get("supervise")

# One that ends at each start, which costs half a second of a core, must not be dear; and one that is killed again
# and again must not be away for long.
PAUSE_MAX_S = 4.0
# A child that lived this long has recovered; its next end is answered with the shortest pause again.
HEALTHY_S = 5.0
LOG_CAP_BYTES = 5 * 1024 * 1024
_LOG_CHECK_S = 10.0
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD)


@dataclass
class Child:
    """One process to keep running. `run` is called in the child and its result is the exit code."""

    name: str
    run: Callable[[Lifeline], int]
    pid: int = 0
    started: float = 0.0
    failures: int = 0
    start_at: float = 0.0


@dataclass
class Stage:
    """Children that start and stop together; `after_stop` is a last duty once all of them have ended."""

    children: Sequence[Child]
    grace_s: float = 10.0
    after_stop: Callable[[], None] | None = None


class Supervisor:
    """Runs stages of children until it is told to stop, or its parent's lifeline is cut."""

    def __init__(
        self, stages: Sequence[Stage], *, pause_s: float, log_dir: Path | None = None, parent: Lifeline | None = None
    ) -> None:
        self._stages = stages
        self._children = [child for stage in stages for child in stage.children]
        self._pause_s = pause_s
        self._log_dir = log_dir
        self._parent = parent
        self._lifeline = Lifeline()
        self._stopping = False
        self._code = 0
        self._logs_checked = 0.0

    def begin(self, stage: Stage) -> None:
        """Start a stage before the others."""
        for child in stage.children:
            self._start(child)

    def stop(self) -> None:
        """Stop every stage, the last one first."""
        self._stopping = True
        for stage in reversed(self._stages):
            started = any(child.started for child in stage.children)
            self._stop(stage)
            if stage.after_stop and started:
                self._in_a_child(stage.after_stop, stage.grace_s)

    def run(self) -> int:
        """Supervise until the end; returns the exit code. Installs signal handlers of its own."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._on_signal)
        while not self._stopping:
            self._start_due()
            watched = [wake_read] + ([self._parent.fileno()] if self._parent else [])
            ready, _, _ = select.select(watched, [], [], self._until_next())
            if self._parent and self._parent.fileno() in ready:
                _log.warning("parent_is_gone")
                self._stopping = True
            if wake_read in ready:
                os.read(wake_read, 4096)
            self._reap()
            self._cap_logs()
        self.stop()
        return self._code

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD:
            self._stopping = True

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.pid == 0 and child.start_at <= now:
                self._start(child)

    def _start(self, child: Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(child)
        child.pid, child.started = pid, time.monotonic()
        _log.info("process_started", process=child.name, pid=pid)

    def _become(self, child: Child) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _HANDLED:
                signal.signal(number, signal.SIG_DFL)
            name_process(child.name)
            if self._parent:
                self._parent.close()
            if self._log_dir:
                redirect(self._log_dir / f"{child.name}.log")
            code = child.run(self._lifeline)
        except NanotasksError as error:
            print(f"{child.name}: {error}", file=sys.stderr)  # noqa: T201
            code = error.exit_code
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            _leave(code)

    def _until_next(self) -> float:
        waiting = [child.start_at for child in self._children if child.pid == 0]
        return max(0.0, min([*waiting, time.monotonic() + _LOG_CHECK_S]) - time.monotonic())

    def _reap(self) -> None:
        """Take note of every ended child; as process 1 of a container also of orphans, which nobody else reaps."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((child for child in self._children if child.pid == pid), None)
            if child is not None:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, code: int) -> None:
        now = time.monotonic()
        child.pid = 0
        if self._stopping:
            return
        child.failures, pause = after_an_end(child.failures, now - child.started, self._pause_s)
        child.start_at = now + pause
        _log.warning("process_ended", process=child.name, code=code, again_in_s=pause)
        if code == ConfigError.exit_code:
            self._code, self._stopping = code, True

    def _stop(self, stage: Stage) -> None:
        for number, patience_s in ((signal.SIGTERM, stage.grace_s), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 5.0)):
            for child in stage.children:
                if child.pid:
                    os.kill(child.pid, number)
            if self._wait(stage.children, patience_s):
                return

    def _wait(self, children: Sequence[Child], patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while True:
            self._reap()
            if not any(child.pid for child in children):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)

    def _in_a_child(self, duty: Callable[[], None], patience_s: float) -> None:
        def run(_lifeline: Lifeline) -> int:
            duty()
            return 0

        last = Child("last-duty", run)
        self._start(last)
        self._children.append(last)
        if not self._wait([last], patience_s) and last.pid:
            os.kill(last.pid, signal.SIGKILL)
            self._wait([last], 5.0)

    def _cap_logs(self) -> None:
        now = time.monotonic()
        if self._log_dir is None or now - self._logs_checked < _LOG_CHECK_S:
            return
        self._logs_checked = now
        for path in self._log_dir.glob("*.log"):
            cap(path, LOG_CAP_BYTES)


def after_an_end(failures: int, lived_s: float, pause_s: float) -> tuple[int, float]:
    """How many times in a row a child has ended young now, and the pause before its next start in seconds."""
    failures = 0 if lived_s > HEALTHY_S else failures + 1
    # Not 2 to the power of a number without bound.
    return failures, min(pause_s * 2 ** min(max(0, failures - 1), 16), PAUSE_MAX_S)


def cap(path: Path, limit: int) -> None:
    """Keep a log and one predecessor below `limit` bytes each.

    The writers hold the file open for appending and share it, so it is copied and cut instead of renamed.
    """
    if path.stat().st_size <= limit:
        return
    with path.open("rb") as source:
        source.seek(-limit, os.SEEK_END)
        path.with_suffix(".log.1").write_bytes(source.read())
    os.truncate(path, 0)


def redirect(path: Path) -> None:
    """Send this process's output to the end of a log, and take its input away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    os.close(nothing)


def _leave(code: int) -> NoReturn:
    """End a forked child: its own exit handlers run, the parent's stack is never returned to."""
    import atexit

    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
