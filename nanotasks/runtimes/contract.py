"""What the host asks of a container runtime, whichever it is.

One session has at most one live agent. A runtime enforces that itself (one fixed Docker name, one inherited
lock) and is the authority on what runs: callers ask `find`, never a database row (promise I5).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nanotasks.errors import ConflictError, DependencyDownError


@dataclass(frozen=True)
class Mount:
    """A host path inside the container; the process runtime only uses the ones its environment names.

    `owned` says that the folder belongs to the agent: its user is made able to write everything in it.
    """

    source: Path
    target: str
    read_only: bool = True
    owned: bool = False


@dataclass(frozen=True)
class Limits:
    memory_mb: int
    cpus: float
    pids: int
    nofile: int
    log_kb: int


@dataclass(frozen=True)
class StartSpec:
    """Everything one start needs. `environment` never holds a secret; `command[0]` is `python3`."""

    session_id: str
    agent_group_id: str
    instance_id: str
    epoch: int
    image: str
    limits: Limits
    working_dir: str
    command: tuple[str, ...] = ("python3", "-P", "-s", "-m", "agent_runner")
    network: str = "bridge"
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """One live agent as the runtime sees it. `pid` is on this host, or None where it cannot be known."""

    session_id: str
    instance_id: str
    epoch: int
    runtime_id: str
    started_ms: int
    pid: int | None = None
    pid_start: int | None = None


@dataclass(frozen=True)
class Exit:
    """The end of one agent. `code` is the exit status, 128 + n after signal n, None when nobody can know it."""

    session_id: str
    instance_id: str
    code: int | None
    reason: str


class AlreadyRunningError(ConflictError):
    """The session already has a live agent."""

    def __init__(self, running: Running) -> None:
        super().__init__(fix="Adopt it: it is the session's agent.")
        self.running = running


class RuntimeDownError(DependencyDownError):
    """The container runtime does not answer."""


class StartFailedError(DependencyDownError):
    """The agent could not be started."""

    code = "start_failed"


class Runtime(Protocol):
    """`docker` and `process`; both pass `tests/integration/test_runtimes.py`."""

    name: str
    isolates: bool

    # Every method but `start` and `watch` raises `RuntimeDownError` when the runtime cannot say.

    def start(self, spec: StartSpec) -> Running:
        """Start the session's agent. Raises `AlreadyRunningError` (adopt it) or `StartFailedError`."""

    def find(self, session_id: str) -> Running | None:
        """The session's live agent, asked of the kernel or the daemon; None when none lives."""

    def is_alive(self, session_id: str) -> bool:
        """Cheap form of `find`, for the warm path."""

    def list(self) -> list[Running]:
        """Every live agent of this installation on this host."""

    def stop(self, session_id: str, grace_s: float, reason: str) -> Exit | None:
        """Ask, wait, kill; returns once it is proven dead. None when none lived.

        The exit is the caller's to record; watchers may report it too.
        """

    def last_exit(self, session_id: str, instance_id: str) -> Exit | None:
        """How an instance ended, while that is known and nobody took its session's place; else None."""

    def last_log(self, session_id: str, lines: int = 20) -> str:
        """The end of the agent's log, for an error message."""

    def watch(self, on_exit: Callable[[Exit], None], stop: threading.Event) -> None:
        """Report exits as they happen until `stop` is set; runs in the caller's thread.

        An exit that happened while nobody watched is reported first. One whose report raises is reported again.
        """

    def close(self) -> None:
        """Close what this process holds open; agents live on."""
