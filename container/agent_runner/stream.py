"""An open query and the thread that reads its events.

The thread hands each event over and waits until the loop has dealt with it: when a provider goes on after a result,
the rows and acks of that turn are committed, and the next message is published as the one being answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from agent_runner.providers.contract import Event, Prompt, Query


class Failed(NamedTuple):
    """The query raised; no further events come."""

    error: BaseException


class Ended(NamedTuple):
    """The query is over without an error."""


StreamEvent = Event | Failed | Ended


class Stream:
    """One open query. `instructions` is the system prompt it was opened with."""

    def __init__(self, query: Query, instructions: str, post: Callable[[Stream, StreamEvent], None]) -> None:
        self.instructions = instructions
        self.ending = False
        self._query = query
        self._post = post
        self._handled = threading.Semaphore(0)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="provider-events", daemon=True)
        self._thread.start()

    def push(self, prompt: Prompt) -> None:
        self._query.push(prompt)

    def end(self) -> None:
        """Let the provider finish what it has, and take nothing more; `Ended` follows."""
        self.ending = True
        self._query.end()

    def close(self, wait_s: float = 0.0) -> None:
        """Stop it now; no event of this stream is posted from here on."""
        self._closed = True
        self._query.abort()
        self._handled.release()
        self._thread.join(wait_s)

    def resume(self) -> None:
        """The last event is dealt with; read the next."""
        self._handled.release()

    def _read(self) -> None:
        try:
            for event in self._query.events():
                if not self._hand_over(event):
                    return
        except BaseException as error:  # also a library's SystemExit: the turn failed, and must not hang
            self._hand_over(Failed(error))
        else:
            self._hand_over(Ended())

    def _hand_over(self, event: StreamEvent) -> bool:
        if self._closed:
            return False
        self._post(self, event)
        self._handled.acquire()
        return not self._closed
