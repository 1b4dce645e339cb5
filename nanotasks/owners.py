"""Owners: (host, boot id, pid, process start time), so that a dead owner on this host is known at once.

A pid alone may be reused; together with the boot id and the start time it names one process for ever, as long as both
sides count pids in one namespace: so the boot id carries the namespace, and an owner in another one (a worker in a
container of its own) is never called dead.
The text form is `host/boot/pid/start` and is what `leases.owner` and `deliveries.owner` hold.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    host: str
    boot_id: str
    pid: int
    start_time: int

    def __str__(self) -> str:
        return f"{self.host}/{self.boot_id}/{self.pid}/{self.start_time}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner a text names, or None when it is not of that form."""
        parts = text.rsplit("/", 3)
        if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))


@functools.cache
def boot_id() -> str:
    """The kernel's boot id and this process's pid namespace, `unknown` where there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = "unknown"
    try:
        return f"{boot}@{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return boot


def process_start_time(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def this_owner(host: str) -> Owner:
    """This process as an owner on `host`."""
    pid = os.getpid()
    return Owner(host, boot_id(), pid, process_start_time(pid) or 0)


def is_dead(owner: Owner, host: str) -> bool:
    """True only when `owner` was on this host and surely runs no more; a foreign owner is never called dead."""
    if owner.host != host:
        return False
    boot, _, namespace = owner.boot_id.partition("@")
    boot_here, _, namespace_here = boot_id().partition("@")
    if boot != boot_here:
        return True
    if namespace and namespace != namespace_here:
        return False
    return process_start_time(owner.pid) != owner.start_time
