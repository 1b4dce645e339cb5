"""A model of leases beside the real ones: who may hold one, and whose word does not count any more."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

from nanotasks.central import leases
from nanotasks.central.leases import Held
from nanotasks.clock import now_ms
from tests.faults.machine.house import House
from tests.faults.machine.workers import Worker


@dataclass
class Claimed:
    """One lease that a worker took, as that worker remembers it; `host` is where it ran."""

    worker: Worker
    held: Held
    expires_ms: int

    @property
    def host(self) -> str:
        return self.worker.settings.host_id


class Claims:
    """Takes, renews and releases leases, and notes in `broken` what should not have happened.

    `held` are the leases in the memories of living workers, rightly or not.
    """

    def __init__(self, house: House) -> None:
        self._house = house
        self._last: dict[str, Claimed | None] = {}
        self._dead: set[str] = set()
        self.held: list[Claimed] = []
        self.broken: list[str] = []

    def take(self, worker: Worker, name: str, ttl_s: int) -> None:
        free = self._is_free(name, worker)
        held = leases.claim(worker.db, name, worker.owner, ttl_s)
        if (held is not None) != free:
            self.broken.append(f"{name} is {'free' if free else 'taken'}, and {worker.name} got {held}")
        if held is not None:
            self._last[name] = Claimed(worker, held, now_ms() + ttl_s * 1000)
            self.held.append(self._last[name])

    def renew(self, claimed: Claimed) -> None:
        before, ours = self._row(claimed), self._is_ours(claimed)
        if leases.renew(claimed.worker.db, claimed.held, 30) != ours:
            self.broken.append(f"{claimed.held} was {'not ' if ours else ''}renewed, and the lease was {before}")
        if ours:
            claimed.expires_ms = now_ms() + 30_000
        else:
            self._check_unchanged(claimed, before)

    def release(self, claimed: Claimed) -> None:
        self.held.remove(claimed)
        before, ours = self._row(claimed), self._is_ours(claimed)
        if leases.release(claimed.worker.db, claimed.held) != ours:
            self.broken.append(f"{claimed.held} was {'not ' if ours else ''}released, and the lease was {before}")
        if ours:
            self._last[claimed.held.name] = None
        else:
            self._check_unchanged(claimed, before)

    def bury(self) -> None:
        """Forget what dead workers had in mind."""
        self._dead |= {one.held.owner for one in self.held if not self._lives(one)}
        self.held = [one for one in self.held if self._lives(one)]

    def _lives(self, claimed: Claimed) -> bool:
        return claimed.worker.alive and str(claimed.worker.owner) == claimed.held.owner

    def _is_free(self, name: str, worker: Worker) -> bool:
        last = self._last.get(name)
        if last is None or self._was_freed(last) or last.expires_ms <= now_ms():
            return True
        return last.host == worker.settings.host_id and last.held.owner in self._dead

    def _is_ours(self, claimed: Claimed) -> bool:
        return self._last.get(claimed.held.name) is claimed and not self._was_freed(claimed)

    def _was_freed(self, claimed: Claimed) -> bool:
        """A sweep may free what ran out, and what owners on a host hold that is silent."""
        return self._row(claimed)[0] is None

    def _row(self, claimed: Claimed) -> tuple[str | None, int, int]:
        with self._house.observer.read_core() as connection:
            row = connection.execute(
                text("SELECT owner, epoch, expires_at FROM leases WHERE name = :name"), {"name": claimed.held.name}
            ).one()
        return row.owner, row.epoch, row.expires_at

    def _check_unchanged(self, claimed: Claimed, before: tuple[str | None, int, int]) -> None:
        if self._row(claimed) != before:
            self.broken.append(f"{claimed.held} is old, and changed the lease from {before} to {self._row(claimed)}")
