"""A host's lease as its agents see it: on shared storage they stop themselves when their host is not heard of.

Other hosts may take over an agent group whose host was silent for `host_timeout_s`, and nobody can ask a host that
is gone whether its agents run. So they have to be dead by then of themselves, whatever holds their host back: a
network that is cut, a machine that was suspended, a keeper that hangs. One small file per host says how long they
may go on, and it is mounted read-only in each agent:

    <data>/run/lease/host      <since> <renewed>      in milliseconds of the kernel's clock since boot

    renewed    when the last successful sign of life *began*: others count from its commit, which came later
    since      when the present row of signs of life began: none of them was later than an agent may bear

    heartbeat ── began ──▶ commit in the central database ── renew(began) ──▶ the file

An agent is started with the moment at which its start was decided, and runs while `since` is not later than that,
and `renewed` not older than `agent_lease_s` (the time-out of a host minus a margin). It looks once a second and before
each of its commits. The clock is CLOCK_BOOTTIME: containers have the one of their host, nobody sets it, and it goes on
while the machine sleeps.

What each failure does:

- the keeper dies, and another worker's keeper goes on in time: the row of signs goes on, the agents too.
- the central database is away for longer than the lease: no sign succeeds, and the agents of the host end. Their rows
  wait; whoever has the group then starts them again.
- the machine is suspended, or everything on it: the agents wake with a file that is too old, and end before they
  commit anything. If the keeper is quicker than they are, its file says a new `since`, and they end as well.
- a start is held up between its decision and the runtime: the agent compares its own moment with `since`, and ends.
- the writer is held up between the commit and the file: what it then writes is old, and says so.
- the file cannot be written (a full disk): it becomes old. That costs the agents, and no message.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from nanotasks.errors import DependencyDownError
from nanotasks.settings import Settings

NAME = "host"
# Where the folder of the file is mounted in a container.
TARGET = "/run/nanotasks"


def boot_ms() -> int:
    """Milliseconds since the machine was started, those in which it slept included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def folder(settings: Settings) -> Path:
    """The folder that agents see."""
    return settings.data_dir / "run" / "lease"


def renew(settings: Settings, began: int) -> None:
    """After a sign of life of this host was committed: its agents may go on, counted from `began`."""
    path = folder(settings) / NAME
    now = boot_ms()
    since, renewed = _read(path) or (now, 0)
    # A moment ahead of now is one before the last boot.
    if not now - _limit_ms(settings) < renewed <= now:
        since = now
    _write(path, f"{since} {max(began, 0)}\n")


def begin(settings: Settings) -> int | None:
    """The moment at which a start is decided, to be handed to the agent; None on local storage.

    Raises `DependencyDownError` while this host's own sign of life is too old: what it started would end at once.
    """
    if settings.storage == "local":
        return None
    now = boot_ms()
    found = _read(folder(settings) / NAME)
    if found is None or not found[1] <= now < found[1] + _limit_ms(settings):
        raise DependencyDownError(
            "No agents are started while this host cannot give signs of life.",
            why="Its agent groups are on shared storage, and another host may take them over.",
            fix="Look at the central database and at the log of the worker.",
        )
    return now


def environment(settings: Settings, began: int, file: str) -> dict[str, str]:
    """What an agent is told: where the file is for it, when its start was decided, how old a sign of life may be."""
    return {
        "NANOTASKS_LEASE_FILE": file,
        "NANOTASKS_LEASE_BEGAN_MS": str(began),
        "NANOTASKS_LEASE_MS": str(_limit_ms(settings)),
    }


def _limit_ms(settings: Settings) -> int:
    return round(settings.agent_lease_s * 1000)


def _read(path: Path) -> tuple[int, int] | None:
    try:
        since, renewed = path.read_text().split()
        return int(since), int(renewed)
    except (OSError, ValueError):
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    fresh = path.with_name(f".{NAME}.{os.getpid()}")
    fresh.write_text(text)
    # Agents run as another user.
    fresh.chmod(0o644)
    fresh.replace(path)
