"""Guards that are taken away in this process, to see that the machine notices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import update

from nanotasks.central import Database, leases, rows_changed
from nanotasks.central.leases import Held, Lease
from nanotasks.deliver import facts, ledger
from nanotasks.sweep import lost
from tests.faults.guards import GUARDS
from tests.installation import ROOT


@dataclass(frozen=True)
class Removal:
    """`remove` takes the guard away; `change` is a statement on the central database; `notice` is what is said then."""

    name: str
    remove: Callable[[pytest.MonkeyPatch], None]
    notice: str
    change: str = ""


def _of_ledger(old: str, new: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Deliver by a ledger whose source was edited."""

    def remove(patches: pytest.MonkeyPatch) -> None:
        source = (ROOT / "nanotasks/deliver/ledger.py").read_text()
        assert source.count(old) == 1, f"the text of this guard stands {source.count(old)} times in the ledger"
        edited = ModuleType("edited_ledger")
        patches.setitem(sys.modules, edited.__name__, edited)
        exec(compile(source.replace(old, new), "edited_ledger.py", "exec"), edited.__dict__)
        patches.setattr(facts, "Ledger", edited.Ledger)

    return remove


def _listed(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """The edit of the ledger that stands in `guards.py` under this name."""
    (guard,) = (one for one in GUARDS if one.name == name)
    assert (ROOT / guard.file) == (ROOT / ledger.__file__), guard.file
    return _of_ledger(guard.old, guard.new)


def _release_by_owner(db: Database, held: Held) -> bool:
    with db.write() as session:
        mine = update(Lease).where(Lease.name == held.name, Lease.owner == held.owner)
        return rows_changed(session, mine.values(owner=None, expires_at=0)) == 1


def _put(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patches: patches.setattr(owner, name, value)


REMOVALS = (
    Removal("a lease is released under its epoch", _put(leases, "release", _release_by_owner), "is old, and changed"),
    Removal("a dead owner's lease is void at once", _put(leases, "_is_dead", lambda *_: False), "is free, and"),
    Removal(
        "one row of a lane is sent at a time",
        _of_ledger(
            'return exists().where(_other.c.lane == lane, in_states("other", "sending"))',
            'return exists().where(_other.c.lane == lane, in_states("other", "sending"), _other.c.lane != lane)',
        ),
        r"I2 a lane is sending two rows|I3 .* \(sending\)",
        change="DROP INDEX uq_deliveries_lane_sending",
    ),
    Removal(
        "an attempt is written before its send",
        _listed("an attempt is written before its send"),
        "I2 attempts are counted and not written",
    ),
    Removal(
        "an outcome is recorded by its own claim only",
        _listed("an outcome is recorded by its own claim only"),
        "a finish that came late changed|I8 deliveries|called delivered and never arrived",
    ),
    Removal(
        "a lane waits for the row that is tried again",
        _listed("a lane waits for the row that is tried again"),
        "I3 dlv-.* arrived before",
    ),
    Removal(
        "the sweep signals again what was lost",
        _put(lost, "lost_signals", lambda *_: []),
        "at rest:\nI1 a message",
    ),
)
