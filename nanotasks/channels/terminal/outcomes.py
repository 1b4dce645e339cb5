"""Tells clients when their messages are settled: one reader for all connections of a gateway.

Each waiting message is looked up after growing pauses, sooner when a letter came into its chat. All that are due
are looked up in one query, at most forty times a second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from nanotasks import logs
from nanotasks.central import Database, progress
from nanotasks.channels.terminal.wire import Wire
from nanotasks.domain.settled import settled_state

_log = logs.get("terminal")

_ROUND_S = 0.025
_FIRST_S = 0.05
# A reply's own records are finished some milliseconds after the reply.
_AFTER_LETTER_S = 0.01
_LAST_S = 0.5
_GROWTH = 1.3
_TROUBLE_S = 1.0


@dataclass(eq=False)
class _Waiting:
    event_id: str
    message_id: str
    chat: str
    wire: Wire
    pause_s: float = _FIRST_S
    due_at: float = field(default_factory=lambda: time.monotonic() + _FIRST_S)

    def postpone(self) -> None:
        self.due_at = time.monotonic() + self.pause_s
        self.pause_s = min(self.pause_s * _GROWTH, _LAST_S)

    def hurry(self) -> None:
        self.pause_s = _AFTER_LETTER_S
        self.due_at = time.monotonic() + _AFTER_LETTER_S


class Outcomes:
    """One per gateway; its methods belong to the gateway's event loop."""

    def __init__(self, central: Database, bring: Callable[[], Awaitable[None]]) -> None:
        """`bring` offers the letters that are there: after that, a settled message has all its replies."""
        self._central = central
        self._bring = bring
        self._waiting: set[_Waiting] = set()
        self._news = asyncio.Event()

    def expect(self, event_id: str, message_id: str, chat: str, wire: Wire) -> None:
        """The client at `wire` waits for what becomes of its message."""
        self._waiting.add(_Waiting(event_id, message_id, chat, wire))
        self._news.set()

    def forget(self, wire: Wire) -> None:
        """The client is gone."""
        self._waiting = {one for one in self._waiting if one.wire is not wire}

    def hurry(self, chat: str) -> None:
        """A letter came into a chat, so its messages may be settled soon."""
        for one in self._waiting:
            if one.chat == chat:
                one.hurry()
                self._news.set()

    async def run(self) -> None:
        """Tell outcomes until cancelled."""
        while True:
            try:
                await self._look([one for one in self._waiting if one.due_at <= time.monotonic()])
            except Exception as error:
                _log.warning("progress_unreadable", error=str(error))
                await asyncio.sleep(_TROUBLE_S)
            await asyncio.sleep(_ROUND_S)
            await self._rest()

    async def _look(self, due: Collection[_Waiting]) -> None:
        if not due:
            return
        found = await asyncio.to_thread(self._progress, {one.event_id for one in due})
        settled: list[tuple[_Waiting, str, str | None]] = []
        for one in due:
            facts = found.get(one.event_id, progress.Progress("dead", "the record of it was deleted"))
            state = settled_state(facts.event_state, facts.route_states, facts.is_delivering)
            if state is None:
                one.postpone()
            elif one in self._waiting:
                settled.append((one, state, facts.reason))
        if settled:
            await self._bring()
        for one, state, reason in settled:
            self._waiting.discard(one)
            one.wire.send("settled", id=one.message_id, state=state, reason=reason)

    async def _rest(self) -> None:
        due_at = min((one.due_at for one in self._waiting), default=None)
        try:
            async with asyncio.timeout(None if due_at is None else max(0.0, due_at - time.monotonic())):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    def _progress(self, event_ids: Collection[str]) -> dict[str, progress.Progress]:
        with self._central.read_core() as connection:
            return progress.of_events(connection, event_ids)
