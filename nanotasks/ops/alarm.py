"""The alarm of a host: signals due work when it is due.

It knows the smallest due time of this host's sessions and delivery attempts, and sleeps until then. New due times
are noticed within `LOOK_S`; where the database is SQLite that look costs next to nothing, because the file itself
says whether anybody has committed since. Once in `SWEEP_S` it also looks for work that a dead process left.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterable

from nanotasks.central import Database
from nanotasks.clock import now_ms
from nanotasks.settings import Settings
from nanotasks.sweep import due
from nanotasks.sweep.lost import Signal

# A due time that is set longer than this before it is due is met to the millisecond, another one within it.
LOOK_S = 0.25
SWEEP_S = 2.0
# Between two looks while something is due and the databases' clock has not come to it.
PAUSE_S = 0.02


def sound_alarm(
    db: Database, settings: Settings, ring_all: Callable[[Iterable[Signal]], None], stop: threading.Event
) -> None:
    """Signal due work of this host until `stop` is set."""
    commits = Commits(db)
    due_ms: int | None = None
    swept = 0.0
    try:
        while not stop.is_set():
            if commits.made():
                due_ms = due.next_due_ms(db, settings, settings.host_id)
            left_s = LOOK_S if due_ms is None else (due_ms - now_ms()) / 1000
            if left_s <= 0 or time.monotonic() - swept >= SWEEP_S:
                swept = time.monotonic()
                ring_all(due.due_signals(db, settings, settings.host_id))
                due_ms = due.next_due_ms(db, settings, settings.host_id)
            stop.wait(min(max(left_s, PAUSE_S), LOOK_S))
    finally:
        commits.close()


class Commits:
    """Whether anybody has committed to the central database since the last question; always yes for PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._seen: int | None = None
        self._connection: sqlite3.Connection | None = None
        if db.dialect == "sqlite" and db.url.database:
            self._connection = sqlite3.connect(db.url.database)

    def made(self) -> bool:
        """Ask; a connection of its own tells, since its number changes with the commits of all others."""
        if self._connection is None:
            return True
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        changed: bool = version != self._seen
        self._seen = version
        return changed

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
