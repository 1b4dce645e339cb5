"""The end of an agent whose host is not heard of any more: another host may have its session by then.

Where the session is on storage that several hosts share, the host names a file in which it notes its signs of life.
An agent goes on while the row of signs began before the agent's own start, and the last one is young enough; it
looks once a second, and before each commit. It compares moments of one clock only, the kernel's since boot, which
nobody sets and which goes on while the machine sleeps.

| variable | meaning |
|---|---|
| `NANOTASKS_LEASE_FILE` | two numbers: since when signs come without a gap, when the last one began; in ms since boot |
| `NANOTASKS_LEASE_BEGAN_MS` | when the start of this agent was decided |
| `NANOTASKS_LEASE_MS` | how old the last sign may be |

Without the first there is no lease, and nothing ever ends here.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from agent_runner import log

EXIT_CODE = 75
NAMES = ("NANOTASKS_LEASE_FILE", "NANOTASKS_LEASE_BEGAN_MS", "NANOTASKS_LEASE_MS")
_LOOK_S = 1.0


class HostLease:
    """What the host's file says, as this process last could read it."""

    def __init__(self, file: str, began_ms: int, lease_ms: int) -> None:
        self._file = file
        self._began_ms = began_ms
        self._lease_ms = lease_ms
        self._since_ms, self._renewed_ms = 0, began_ms

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> HostLease | None:
        """The lease that the host named; None on storage of one host. A half-named one is an error."""
        if not environ.get(NAMES[0]):
            return None
        return cls(environ[NAMES[0]], int(environ[NAMES[1]]), int(environ[NAMES[2]]))

    def what_is_wrong(self) -> str | None:
        """Why this agent may not go on; None while it may."""
        try:
            with open(self._file, encoding="ascii") as file:
                since, renewed = file.read().split()
            self._since_ms, self._renewed_ms = int(since), int(renewed)
        except (OSError, ValueError):
            pass  # what was read before becomes old by itself
        if self._since_ms > self._began_ms:
            return "its host was not heard of for a while after this agent was started"
        silent_ms = _boot_ms() - self._renewed_ms
        if silent_ms >= self._lease_ms:
            return f"its host was not heard of for {silent_ms} ms (limit {self._lease_ms} ms)"
        return None


def require() -> None:
    """End this process at once, and with it the agent, if its host's lease is lost."""
    if _lease is None:
        return
    wrong = _lease.what_is_wrong()
    if wrong is not None:
        log.error("host_lease_lost", reason=wrong)
        # Nothing may run on the way out: what would be written belongs to another host.
        os._exit(EXIT_CODE)


def watch() -> None:
    """From now on look every second, whatever else this process does."""
    if _lease is not None:
        require()
        threading.Thread(target=_look_on, name="host-lease", daemon=True).start()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a child process that writes for this agent has to be told."""
    return {name: environ[name] for name in NAMES if name in environ}


def _look_on() -> None:
    while True:
        time.sleep(_LOOK_S)
        require()


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


_lease = HostLease.from_environment(os.environ)
