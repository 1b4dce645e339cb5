"""On which host an agent group lives, from when it gets its first message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class HostLoad:
    """A host that is up: how many agent groups it has, and how many containers it may run."""

    host_id: str
    groups: int
    capacity: int


def choose_host(hosts: Iterable[HostLoad]) -> str | None:
    """The host with the fewest agent groups for its capacity, by id among equals; None when no host is up."""
    candidates = [host for host in hosts if host.capacity > 0]
    return min(candidates, key=lambda host: (host.groups / host.capacity, host.host_id)).host_id if candidates else None
