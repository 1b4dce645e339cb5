"""Ticks: a periodic duty is claimed in the central database, so that any number of beats does its work once."""

from __future__ import annotations

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from nanotasks import faults
from nanotasks.central import Database, rows_changed
from nanotasks.central.meta import Tick

# Two beats, or one that is late and then on time, send ticks a little closer together than the period.
_EARLY = 0.8


def claim(db: Database, name: str, period_s: float) -> bool:
    """Whether this tick of `name` is ours: true at most once per period, on the database's clock."""
    claimed = _claim(db, name, period_s)
    if claimed:
        faults.point("tick.after_claim")
    return claimed


def ages_s(db: Database) -> dict[str, float]:
    """How long ago each tick was claimed, in seconds; those that never were are left out."""
    with db.read() as session:
        now = db.now_ms(session)
        return {name: (now - at) / 1000 for name, at in session.execute(select(Tick.name, Tick.claimed_at))}


def _claim(db: Database, name: str, period_s: float) -> bool:
    with db.write() as session:
        now = db.now_ms(session)
        due = now - round(period_s * 1000 * _EARLY)
        # A claim of the future was made by a clock that was put back since.
        free = or_(Tick.claimed_at <= due, Tick.claimed_at > now + round(period_s * 1000))
        if rows_changed(session, update(Tick).where(Tick.name == name, free).values(claimed_at=now)):
            return True
        try:
            with session.begin_nested():
                session.add(Tick(name=name, claimed_at=now))
        except IntegrityError:
            return False
        return True
