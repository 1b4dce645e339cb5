"""Figures that are counted because no row tells them, and durations that are counted once for every reader.

    counters    a name and a label, and how often it happened; whoever saw it adds to it
    durations   how many spans of each length, as `watch.fold` counted them from the rows up to `folds.mark_ms`
    canaries    when each worker last received the task that it sends itself

A process that sees something rare says `noted(db, name, label)`. What it noted leaves in one small transaction two
seconds later, so that a storm costs a commit now and then; a process that is killed takes at most that along.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import Counter as Tally
from collections.abc import Mapping

from sqlalchemy import Connection
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks import logs
from nanotasks.central.base import Base, Millis
from nanotasks.central.engine import Database, insert_for
from nanotasks.errors import NanotasksError

_log = logs.get("figures")

STALE_WRITES = "stale_writes"
RESIGNALS = "resignals"
ATTEMPTS = "attempts"
DROPS = "drops"
MESSAGES = "messages"
RUNS = "runs"

LATER_S = 2.0


class Counter(Base):
    """How often something happened since the installation began."""

    __tablename__ = "counters"

    name: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[Millis] = mapped_column(default=0, server_default="0")


class DurationBucket(Base):
    """Spans longer than the bound before and not longer than `bound_ms`: how many, and their sum."""

    __tablename__ = "durations"

    name: Mapped[str] = mapped_column(primary_key=True)
    bound_ms: Mapped[Millis] = mapped_column(primary_key=True)
    count: Mapped[Millis] = mapped_column(default=0, server_default="0")
    sum_ms: Mapped[Millis] = mapped_column(default=0, server_default="0")


class Fold(Base):
    """Up to which instant rows were counted."""

    __tablename__ = "folds"

    name: Mapped[str] = mapped_column(primary_key=True)
    mark_ms: Mapped[Millis] = mapped_column(default=0, server_default="0")


class Canary(Base):
    """When a worker last received its own task."""

    __tablename__ = "canaries"

    worker: Mapped[str] = mapped_column(primary_key=True)
    host_id: Mapped[str]
    heard_at: Mapped[Millis]


def add(connection: Connection, name: str, amounts: Mapping[str, int]) -> None:
    """Add to the counters of one name, by label, in the caller's transaction."""
    insertion = insert_for(connection, Counter)
    adding = insertion.on_conflict_do_update(
        index_elements=["name", "label"], set_={"value": Counter.value + insertion.excluded.value}
    )
    # Sorted, so that two processes never wait for each other's rows.
    for label, amount in sorted(amounts.items()):
        connection.execute(adding, {"name": name, "label": label, "value": amount})


def canary_heard(db: Database, worker: str, host_id: str) -> None:
    """A worker received its own task just now."""
    with db.write_core() as connection:
        insertion = insert_for(connection, Canary)
        heard = insertion.on_conflict_do_update(
            index_elements=["worker"],
            set_={"host_id": insertion.excluded.host_id, "heard_at": insertion.excluded.heard_at},
        )
        connection.execute(heard, {"worker": worker, "host_id": host_id, "heard_at": db.now_ms(connection)})


class _Notes:
    """What one process noted and did not write yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.writing = threading.Lock()
        self.tally: Tally[tuple[str, str]] = Tally()
        self.db: Database | None = None
        self.timer: threading.Timer | None = None


_notes = _Notes()


def noted(db: Database, name: str, label: str) -> None:
    """Count something that was seen; returns at once, whatever transaction the caller is in."""
    with _notes.lock:
        if _notes.db is not db:
            _notes.db = db
            db.before_close.append(write_notes)
        _notes.tally[name, label] += 1
        if _notes.timer is None:
            _notes.timer = threading.Timer(LATER_S, write_notes)
            _notes.timer.daemon = True
            _notes.timer.start()


def write_notes() -> None:
    """Write what this process noted; what cannot be written is lost, and said in the log."""
    with _notes.writing:
        with _notes.lock:
            tally, db, timer = _notes.tally, _notes.db, _notes.timer
            _notes.tally, _notes.timer = Tally(), None
        if timer is not None:
            timer.cancel()
        if db is None or not tally:
            return
        try:
            with db.write_core() as connection:
                for name in sorted({name for name, _ in tally}):
                    add(connection, name, {label: count for (one, label), count in tally.items() if one == name})
        except NanotasksError as error:
            lost = {f"{name}.{label}": count for (name, label), count in tally.items()}
            _log.warning("counts_lost", counts=lost, error=str(error))


def _start_afresh() -> None:
    global _notes
    _notes = _Notes()


# A forked child must share neither the parent's timer nor what the parent is going to write.
os.register_at_fork(after_in_child=_start_afresh)
atexit.register(write_notes)
