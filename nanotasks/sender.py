"""A background sender: whoever hands it something is never blocked and never sees an error.

Publishing blocks for seconds when the broker is away, and nothing may wait for that: a message is accepted when
its row is committed. So what is to be sent goes into a bounded queue, and one daemon thread, started on first use,
sends it. The same thing handed over twice before it left is sent once. While the other side is away the queue
keeps everything and tries again with a growing pause; when it is full the oldest goes, and is counted. What is
lost here costs latency only: the sweeps find its rows.

A forked child starts with an empty queue and without the thread; its parent sends what was its own.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from nanotasks import logs

_log = logs.get("sender")

PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 1.0


class Unreachable(Exception):
    """The other side is away: keep the item and try again."""


@dataclass
class Counts:
    """What became of the items of one process."""

    sent: int = 0
    dropped: int = 0
    failed: int = 0


class BackgroundSender:
    """Sends items one after the other. `send` raises `Unreachable` for "later" and anything else for "never"."""

    def __init__(self, send: Callable[[Hashable], None], *, limit: int = 10_000, keep_s: float = 300.0) -> None:
        self._send = send
        self._limit = limit
        self._keep_s = keep_s
        self._items: OrderedDict[Hashable, float] = OrderedDict()
        self._changed = threading.Condition()
        self._busy = False
        self._thread: threading.Thread | None = None
        self.counts = Counts()

    def put(self, item: Hashable) -> None:
        """Hand over one item; returns at once."""
        with self._changed:
            if item in self._items:
                return
            if len(self._items) >= self._limit:
                self._items.popitem(last=False)
                self.counts.dropped += 1
            self._items[item] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything was sent; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items and not self._busy, timeout_s)

    def waiting(self) -> int:
        """How many items have not left yet."""
        with self._changed:
            return len(self._items) + int(self._busy)

    def _run(self) -> None:
        pause = PAUSE_FIRST_S
        while True:
            item, since = self._take()
            if self._try(item, since):
                pause = PAUSE_FIRST_S
            else:
                time.sleep(pause)
                pause = min(2 * pause, PAUSE_MAX_S)

    def _take(self) -> tuple[Hashable, float]:
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            self._busy = True
            return self._items.popitem(last=False)

    def _try(self, item: Hashable, since: float) -> bool:
        reachable = True
        try:
            self._send(item)
            self.counts.sent += 1
        except Unreachable:
            reachable = False
        except Exception as error:
            self.counts.failed += 1
            _log.warning("signal_failed", item=str(item), error=repr(error))
        with self._changed:
            self._busy = False
            if not reachable:
                self._keep(item, since)
            self._changed.notify_all()
        return reachable

    def _keep(self, item: Hashable, since: float) -> None:
        if time.monotonic() - since > self._keep_s or len(self._items) >= self._limit:
            self.counts.dropped += 1
        elif item not in self._items:
            self._items[item] = since
            self._items.move_to_end(item, last=False)
