"""Leases: time-limited ownership of something, with an epoch that never restarts.

    (no row) ──claim──▶ owned ──renew──▶ owned
                          │ ──release──▶ free (owner NULL, epoch kept)
                          └── expires, or its owner is dead on this host ──claim──▶ owned, epoch + 1

An owner may trust its lease until `expires_at` on the database's clock, minus the time its own clock was
stopped: it renews, and a renewal that changes no row means that somebody else owns it now; it stops before its
next side effect. What each failure does:

- the owner is killed: on this host the next claimer sees the dead process and takes over at once; another host
  waits for `expires_at`.
- its whole host is gone: the sweep over the hosts calls it down after `host_timeout_s` of silence and frees its leases,
  within 35 s by the defaults.
- the owner is stopped (SIGSTOP) past its expiry: it is taken over; when it goes on, its renew and its release
  match neither owner nor epoch and change nothing.
- the database does not answer: nothing is claimed or renewed; the lease runs out by itself.
- the database does not answer when a lease is released: `holding` tries it again for some seconds, since an owner that
  lives on is taken for the holder until the lease runs out.
- the owner dies and nobody wants the lease again: the sweep over the host frees it (`free_abandoned`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Index, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from nanotasks.central import figures
from nanotasks.central.base import Base, Millis
from nanotasks.central.changes import changed as note_change
from nanotasks.central.engine import Database, rows_changed
from nanotasks.errors import DependencyDownError
from nanotasks.owners import Owner, is_dead


class Lease(Base):
    """Ownership of `name`; a released row stays, so that the epoch goes on counting."""

    __tablename__ = "leases"
    __table_args__ = (Index("ix_leases_expires_at", "expires_at"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str | None]
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    expires_at: Mapped[Millis] = mapped_column(default=0, server_default="0")
    payload: Mapped[str] = mapped_column(default="{}", server_default="{}")


_RELEASE_AGAIN_S = (0.1, 0.4, 1.5, 3.0, 5.0)


@dataclass(frozen=True)
class Held:
    """A claimed lease: what to show when renewing, releasing, or writing under it."""

    name: str
    owner: str
    epoch: int


def claim(db: Database, name: str, owner: Owner, ttl_s: float, payload: str = "{}") -> Held | None:
    """Take the lease when it is free, expired, or its owner is dead on this host; None when somebody holds it."""
    with db.write() as session:
        now = db.now_ms(session)
        row = session.execute(
            select(Lease.owner, Lease.epoch, Lease.expires_at).where(Lease.name == name)
        ).one_or_none()
        if row is None:
            return _create(session, name, owner, now + round(ttl_s * 1000), payload)
        free = row.owner is None or row.expires_at <= now or _is_dead(row.owner, owner.host)
        if not free:
            return None
        changed = rows_changed(
            session,
            update(Lease)
            .where(Lease.name == name, Lease.epoch == row.epoch, Lease.owner.is_not_distinct_from(row.owner))
            .values(owner=str(owner), epoch=row.epoch + 1, expires_at=now + round(ttl_s * 1000), payload=payload),
        )
        if changed == 1 and row.owner is not None:
            taken = {"owner": str(owner), "from_owner": row.owner, "epoch": row.epoch + 1}
            note_change(session, "lease.taken_over", name, taken)
        return Held(name, str(owner), row.epoch + 1) if changed == 1 else None


def _create(session: Session, name: str, owner: Owner, expires_at: int, payload: str) -> Held | None:
    try:
        with session.begin_nested():
            session.add(Lease(name=name, owner=str(owner), epoch=1, expires_at=expires_at, payload=payload))
    except IntegrityError:
        return None
    return Held(name, str(owner), 1)


def renew(db: Database, held: Held, ttl_s: float) -> bool:
    """Extend the lease; False means that it is lost, and the caller stops before its next side effect."""
    with db.write() as session:
        changed = rows_changed(
            session,
            update(Lease)
            .where(Lease.name == held.name, Lease.owner == held.owner, Lease.epoch == held.epoch)
            .values(expires_at=db.now_ms(session) + round(ttl_s * 1000)),
        )
    if changed != 1:
        figures.noted(db, figures.STALE_WRITES, "lease")
    return changed == 1


def release(db: Database, held: Held) -> bool:
    """Give the lease back; False when it was no longer ours."""
    return _free(db, held, is_abandoned=False)


def _free(db: Database, held: Held, *, is_abandoned: bool) -> bool:
    with db.write() as session:
        changed = rows_changed(
            session,
            update(Lease)
            .where(Lease.name == held.name, Lease.owner == held.owner, Lease.epoch == held.epoch)
            .values(owner=None, expires_at=0),
        )
        if changed == 1 and is_abandoned:
            note_change(session, "lease.freed", held.name, {"from_owner": held.owner, "epoch": held.epoch})
    if changed != 1:
        figures.noted(db, figures.STALE_WRITES, "lease")
    return changed == 1


def free_abandoned(db: Database, owner: Owner) -> list[str]:
    """Free the leases whose owners are dead on `owner`'s host, or that ran out; their names.

    Whoever wants one takes it over anyway. This is for those that nobody wants again: at rest nothing is held.
    """
    with db.read() as session:
        held = select(Lease.name, Lease.owner, Lease.epoch, Lease.expires_at).where(Lease.expires_at > 0)
        now = db.now_ms(session)
        found = [row for row in session.execute(held) if row.expires_at <= now or _is_dead(row.owner, owner.host)]
    return _free_all(db, found)


def free_of_hosts(db: Database, host_ids: Collection[str]) -> list[str]:
    """Free the leases that owners on these hosts hold; their names. For hosts that are down.

    An owner that comes back late finds its epoch gone, and changes nothing.
    """
    if not host_ids:
        return []
    with db.read() as session:
        held = session.execute(select(Lease.name, Lease.owner, Lease.epoch).where(Lease.expires_at > 0)).all()
    owners = [(row, Owner.parse(row.owner)) for row in held]
    theirs = [row for row, owner in owners if owner is not None and owner.host in host_ids]
    return _free_all(db, theirs)


def _free_all(db: Database, rows: Sequence[Any]) -> list[str]:
    held = (Held(row.name, row.owner, row.epoch) for row in rows)
    return [one.name for one in held if _free(db, one, is_abandoned=True)]


def held_now(session: Session) -> list[Lease]:
    """The leases that somebody holds, the one that runs out first at the head."""
    return list(session.scalars(select(Lease).where(Lease.expires_at > 0).order_by(Lease.expires_at)))


def _is_dead(owner: str, host: str) -> bool:
    parsed = Owner.parse(owner)
    return parsed is not None and is_dead(parsed, host)


@contextmanager
def holding(db: Database, name: str, owner: Owner, ttl_s: float) -> Iterator[Held | None]:
    """Hold the lease for a block, or yield None at once when somebody else does."""
    held = claim(db, name, owner, ttl_s)
    try:
        yield held
    finally:
        if held is not None:
            _release_persistently(db, held)


def _release_persistently(db: Database, held: Held) -> None:
    for pause_s in _RELEASE_AGAIN_S:
        try:
            release(db, held)
            return
        except DependencyDownError:
            time.sleep(pause_s)
    release(db, held)
