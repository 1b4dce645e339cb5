"""Brings letters from the mailbox to the clients of their chats: one reader for all connections of a gateway.

It follows the numbers of the mailbox when it is told that something came, and at least every second. Each second
it also asks which letters of the connected chats nobody has seen: that finds what became visible late, what a full
client could not take, and what was written while Redis was away.

Confirmations are written together, a tenth of a second after the first of them: a commit for each would take the
disk from those who answer. A crash in between shows those letters once more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from math import inf

from nanotasks import logs
from nanotasks.central import Database, mailbox
from nanotasks.central.mailbox import Letter
from nanotasks.channels.terminal.protocol import CHANNEL
from nanotasks.channels.terminal.tray import Tray
from nanotasks.clock import now_ms

_log = logs.get("terminal")

LOOK_S = 1.0
# Under load one look brings what several pokes told of; a poke after a pause is looked at at once.
_LOOKS_APART_S = 0.01
_CONFIRM_S = 0.1
_BATCH = 200
_UNSHOWN_LIMIT = 5000


class Postman:
    """One per gateway; its methods belong to the gateway's event loop."""

    def __init__(self, central: Database, on_letter: Callable[[str], None]) -> None:
        """`on_letter(chat)` hears of every letter that is brought."""
        self._central = central
        self._on_letter = on_letter
        self._trays: dict[str, set[Tray]] = {}
        self._confirmed: set[int] = set()
        self._last_item = 0
        self._round = asyncio.Lock()
        self._news = asyncio.Event()
        self._has_news = True
        self._bring_at = 0.0
        self._check_at = 0.0
        self._write_at = 0.0

    async def run(self) -> None:
        """Bring letters and write confirmations until cancelled."""
        while True:
            try:
                await self._work()
            except Exception as error:
                _log.warning("mailbox_unreadable", error=str(error))
                await asyncio.sleep(LOOK_S)
            await self._rest()

    def look(self) -> None:
        """Something may have come."""
        self._has_news = True
        self._news.set()

    async def join(self, chat: str, tray: Tray, greet: Callable[[int], None]) -> None:
        """Add a client: `greet(how many letters wait)`, then those letters, then all that comes."""
        async with self._round:
            await self._write_confirmed()
            newest, waiting = await asyncio.to_thread(self._backlog, chat)
            greet(waiting)
            if not self._trays:
                self._last_item = newest
            self._trays.setdefault(chat, set()).add(tray)
            await self._bring_unshown()

    def leave(self, chat: str, tray: Tray) -> None:
        """The client is gone."""
        trays = self._trays.get(chat, set())
        trays.discard(tray)
        if not trays:
            self._trays.pop(chat, None)

    async def bring(self) -> None:
        """Offer every letter that came since the last time."""
        async with self._round:
            while self._trays:
                letters = await asyncio.to_thread(self._newer, self._last_item)
                self._offer(letters)
                self._last_item = max([self._last_item, *(letter.item for letter in letters)])
                if len(letters) < _BATCH:
                    return

    def confirm(self, tray: Tray, items: Collection[int]) -> None:
        """A client has shown these letters."""
        confirmed = tray.confirm(items)
        if confirmed and not self._confirmed:
            self._write_at = time.monotonic() + _CONFIRM_S
            self._news.set()
        self._confirmed |= confirmed

    async def finish(self) -> None:
        """Write what was confirmed; for the end."""
        async with self._round:
            await self._write_confirmed()

    async def _work(self) -> None:
        checking = time.monotonic() >= self._check_at
        if checking or (self._has_news and time.monotonic() >= self._bring_at):
            self._has_news = False
            self._bring_at = time.monotonic() + _LOOKS_APART_S
            await self.bring()
        if self._confirmed and time.monotonic() >= self._write_at:
            await self.finish()
        if checking:
            async with self._round:
                await self._bring_unshown()
            self._check_at = time.monotonic() + LOOK_S

    async def _rest(self) -> None:
        until = min(
            self._check_at,
            self._write_at if self._confirmed else inf,
            self._bring_at if self._has_news else inf,
        )
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def _bring_unshown(self) -> None:
        # A chat whose clients take nothing more must not keep the letters of the others out of the batch.
        while chats := [chat for chat, trays in self._trays.items() if any(tray.has_room for tray in trays)]:
            unshown = await asyncio.to_thread(self._unshown, chats)
            wanted = [item for item, chat, delivery_id in unshown if self._is_wanted(item, chat, delivery_id)]
            if not wanted:
                return
            self._offer(await asyncio.to_thread(self._letters, wanted[:_BATCH]))

    def _is_wanted(self, item: int, chat: str, delivery_id: str) -> bool:
        return item not in self._confirmed and any(tray.wants(item, delivery_id) for tray in self._trays.get(chat, ()))

    def _offer(self, letters: list[Letter]) -> None:
        for letter in letters:
            for tray in self._trays.get(letter.platform_id, ()):
                tray.offer(letter)
            self._on_letter(letter.platform_id)

    async def _write_confirmed(self) -> None:
        items = set(self._confirmed)
        if items:
            await asyncio.to_thread(self._mark_shown, items)
            self._confirmed -= items

    def _backlog(self, chat: str) -> tuple[int, int]:
        with self._central.read_core() as connection:
            return mailbox.last_item(connection), len(mailbox.unshown(connection, CHANNEL, [chat], _UNSHOWN_LIMIT))

    def _newer(self, after: int) -> list[Letter]:
        with self._central.read_core() as connection:
            return mailbox.newer(connection, CHANNEL, after, _BATCH)

    def _unshown(self, chats: Collection[str]) -> list[tuple[int, str, str]]:
        with self._central.read_core() as connection:
            return mailbox.unshown(connection, CHANNEL, chats, _UNSHOWN_LIMIT)

    def _letters(self, items: Collection[int]) -> list[Letter]:
        with self._central.read_core() as connection:
            return mailbox.letters(connection, items)

    def _mark_shown(self, items: Collection[int]) -> None:
        with self._central.write_core() as connection:
            mailbox.mark_shown(connection, items, now_ms())
