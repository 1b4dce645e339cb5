"""The stream of events: everything up to now in the order of its times, and then what happens, with nothing skipped.

    history   every source from `after` on, merged by (time, source, key)
    follow    every POLL_S what is new, held back by SETTLE_MS, so that those who commit side by side come in order

A row's time is taken before its transaction commits, so it may appear behind what was shown already. Each poll
therefore looks back: a little every time, and by FAR_MS every FAR_EVERY_S. That is longer than a task may live (its
hard time limit) and than clocks of hosts may differ; whatever appears in between is shown late, with its own time.
What was shown is remembered for as long, by source, time and key, so that nothing is shown twice, and rows of one
millisecond are told apart. A look reads ranges of indexes; with nothing new it reads nothing.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator

from nanotasks.central import Database
from nanotasks.watch.rows import SOURCES
from nanotasks.watch.sources import Event, Only

POLL_S = 0.25
SETTLE_MS = 150
NEAR_MS = 5_000
FAR_MS = 180_000
FAR_EVERY_S = 10.0

_RANK = {source.label: number for number, source in enumerate(SOURCES)}


def read(db: Database, after: int, until: int, only: Only) -> Iterator[Event]:
    """The events after `after` and not after `until` (milliseconds UTC), in order."""
    return heapq.merge(*(source.read(db, after, until, only) for source in SOURCES), key=_place)


def _place(event: Event) -> tuple[int, int]:
    return event.at, _RANK[event.key[0]]


class Stream:
    """Events from `after` on (milliseconds UTC), each once."""

    def __init__(self, db: Database, only: Only, after: int) -> None:
        self._db = db
        self._only = only
        self._floor = self._upto = after
        self._seen: dict[tuple[object, ...], int] = {}
        self._far_at = 0.0

    def until_now(self, *, settle_ms: int = 0) -> Iterator[Event]:
        """What there is and was not shown."""
        until = self._now() - settle_ms
        for event in read(self._db, self._look_back(), until, self._only):
            # All before it was shown; so a look that breaks off is gone on with from here.
            self._upto = max(self._upto, event.at - 1)
            if event.key not in self._seen:
                self._seen[event.key] = event.at
                # What is too old for any look back need not be remembered, however long the history is.
                if len(self._seen) % 10_000 == 0:
                    self._forget(event.at)
                yield event
        self._upto = max(self._upto, until)
        self._forget(self._upto)

    def follow(self, wait: Callable[[float], bool]) -> Iterator[Event | None]:
        """What there is, and what comes, until `wait(seconds)` says that nobody reads any more.

        None stands at the end of each look: what was shown is complete for now.
        """
        while True:
            yield from self.until_now(settle_ms=SETTLE_MS)
            yield None
            if not wait(POLL_S):
                return

    def _look_back(self) -> int:
        far = time.monotonic() - self._far_at >= FAR_EVERY_S
        if far:
            self._far_at = time.monotonic()
        return max(self._floor, self._upto - (FAR_MS if far else NEAR_MS))

    def _forget(self, at: int) -> None:
        oldest = at - FAR_MS
        if self._seen:
            self._seen = {key: seen_at for key, seen_at in self._seen.items() if seen_at > oldest}

    def _now(self) -> int:
        with self._db.read_core() as connection:
            return self._db.now_ms(connection)
