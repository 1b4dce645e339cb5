"""Workers that die in the middle of things, and the clock they all go by; all of it in the process of the test.

A worker is known to the others by a real process (an idle child), so that its death is seen as any other. Where it
is to die, at a crash point or between two steps, that child is killed and the code that ran for it is unwound by an
exception that nothing of the product catches. What the unwinding would still write into the central database is
refused, since a killed process writes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import structlog
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from nanotasks import clock, faults, ids, owners
from nanotasks.central import Database, figures
from nanotasks.deliver import pool
from nanotasks.owners import Owner, boot_id, process_start_time
from nanotasks.settings import Settings
from nanotasks.wake.here import Here
from tests.faults.machine.agents import Daemon

BEGINNING_MS = 1_800_000_000_000


class Killed(BaseException):
    """The process that ran this is gone."""


class Clock:
    """Time that passes when it is told to; stands in the place of the module `time` in `nanotasks.clock`."""

    def __init__(self) -> None:
        self.ms = BEGINNING_MS

    def time_ns(self) -> int:
        return self.ms * 1_000_000

    def advance(self, seconds: float) -> None:
        self.ms += round(seconds * 1000)


class MortalDatabase(Database):
    """The central database as one worker opens it: on the virtual clock, and closed to the dead."""

    def __init__(self, shared: Database, worker: Worker) -> None:
        self.url, self.dialect = shared.url, shared.dialect
        self.engine, self._readers = shared.engine, shared._readers
        self._worker = worker

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        with self._alive(), super().write() as session:
            yield session

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        with self._alive(), super().read() as session:
            yield session

    @contextlib.contextmanager
    def write_core(self) -> Iterator[Connection]:
        with self._alive(), super().write_core() as connection:
            yield connection

    @contextlib.contextmanager
    def read_core(self) -> Iterator[Connection]:
        with self._alive(), super().read_core() as connection:
            yield connection

    def now_ms(self, session: Session | Connection) -> int:
        return clock.now_ms()

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        if not self._worker.alive:
            raise Killed
        yield


class Worker:
    """One worker of one host; `start` gives it a new process, and with it a new owner."""

    def __init__(self, name: str, shared: Database, settings: Settings, daemon: Daemon) -> None:
        self.name, self.settings = name, settings
        self._shared, self._daemon = shared, daemon
        self._process: subprocess.Popen[bytes] | None = None
        self.alive = False

    def start(self) -> None:
        """Be alive; what an earlier life of this worker left behind stays that one's."""
        if self.alive:
            return
        # It ends when its standard input does, whatever becomes of the test.
        self._process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.alive = True
        self.db = MortalDatabase(self._shared, self)
        self.here = Here(self.db, self.settings, self._daemon, lambda _name: self._daemon)
        started = process_start_time(self.pid)
        assert started is not None
        self.owner = Owner(self.settings.host_id, boot_id(), self.pid, started)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def die(self) -> None:
        """Be gone, as by a kill -9."""
        self.alive = False
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.kill()
            self._process.stdin.close()
            self._process.wait()
            self._process = None


class Stand:
    """What is put in the place of the process at hand while a machine runs: its clock, its pid, its death."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._acting: Worker | None = None
        self._kills = False
        self._patches = pytest.MonkeyPatch()
        self._patches.setattr(clock, "time", self.clock)
        self._patches.setattr(owners, "os", SimpleNamespace(getpid=self._pid))
        luck = random.Random(0)
        self._patches.setattr(ids, "secrets", SimpleNamespace(randbelow=luck.randrange))
        # One thread for the lanes: they go one after the other, as the seed says.
        self._patches.setattr(pool, "_pool", pool.LanePool(1))
        fail = faults._fail
        # What is counted is written by a thread of its own, in the true time.
        self._patches.setattr(figures, "noted", lambda *_: None)
        self._patches.setattr(faults, "_fail", lambda plan: self._kill() if self._kills else fail(plan))
        # Each fault is told in the logs with its traceback, which takes longer than everything else.
        self._logging = structlog.get_config() if structlog.is_configured() else None
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def close(self) -> None:
        self._patches.undo()
        structlog.reset_defaults()
        if self._logging is not None:
            structlog.configure(**self._logging)

    @contextlib.contextmanager
    def acting(self, worker: Worker, fault: Fault | None = None) -> Iterator[None]:
        """Let the block run as this worker; it may end in the fault, which is swallowed here.

        A fault that does not kill is an error that ends what the worker was doing; it lives on.
        """
        self._acting, self._kills = worker, fault is not None and fault.kills
        try:
            with faults.armed(f"{fault.point}:{fault.nth}:raise") if fault else contextlib.nullcontext():
                yield
        except Killed:
            assert not worker.alive
        except faults.FaultError:
            assert fault is not None and not fault.kills
        finally:
            self._acting = None

    def _pid(self) -> int:
        assert self._acting is not None, "somebody acts who is no worker"
        return self._acting.pid

    def _kill(self) -> None:
        assert self._acting is not None
        self._acting.die()
        raise Killed


class Fault:
    """What goes wrong at the nth time a point is reached: the worker dies there, or an error is raised."""

    def __init__(self, point: str, nth: int, kills: bool) -> None:
        self.point, self.nth, self.kills = point, nth, kills

    def __repr__(self) -> str:
        return f"{'death' if self.kills else 'error'} at {self.point}:{self.nth}"
