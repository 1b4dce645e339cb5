"""The letters on their way to one client.

A letter counts as shown when the client confirmed it. A client that dies before leaves it unshown, and the next one
gets it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from nanotasks.central.mailbox import Letter
from nanotasks.channels.plain_text import as_text
from nanotasks.channels.terminal.wire import Wire
from nanotasks.clock import iso

# Letters that a client may leave unconfirmed before it gets no more.
WINDOW = 1000
_REMEMBERED = 2 * WINDOW


class Tray:
    """Passes each letter to the client once, and remembers which ones it has not confirmed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._unconfirmed: set[int] = set()
        # By delivery too: a number may come again when the newest items were deleted.
        self._passed: OrderedDict[int, str] = OrderedDict()

    @property
    def has_room(self) -> bool:
        """Whether the client may be sent a letter now."""
        return len(self._unconfirmed) < WINDOW and not self._wire.is_congested

    def wants(self, item: int, delivery_id: str) -> bool:
        """Whether the client has not been sent this letter and may be sent it now."""
        return self._passed.get(item) != delivery_id and self.has_room

    def offer(self, letter: Letter) -> None:
        """Send the letter if the client wants it; one that does not is offered it again later."""
        if not self.wants(letter.item, letter.delivery_id):
            return
        self._wire.send("message", **_frame(letter))
        self._unconfirmed.add(letter.item)
        self._passed[letter.item] = letter.delivery_id
        if len(self._passed) > _REMEMBERED:
            self._passed.popitem(last=False)

    def confirm(self, items: Collection[int]) -> set[int]:
        """Those of the items that this client was sent and has confirmed now for the first time."""
        confirmed = self._unconfirmed.intersection(items)
        self._unconfirmed -= confirmed
        return confirmed


def _frame(letter: Letter) -> dict[str, object]:
    return {
        "item": letter.item,
        "delivery_id": letter.delivery_id,
        "chat": letter.platform_id,
        "at": iso(letter.created_at),
        "from": letter.agent,
        "kind": letter.kind,
        "text": as_text(letter.content),
        "files": letter.files,
    }
