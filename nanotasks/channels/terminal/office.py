"""What all terminal connections of a gateway share: the way in, the mailbox, outcomes, and who is called what."""

from __future__ import annotations

import asyncio
import time

from nanotasks.central import Database
from nanotasks.channels.contract import AcceptCallable, Accepted, InboundMessage
from nanotasks.channels.terminal import addressing
from nanotasks.channels.terminal.outcomes import Outcomes
from nanotasks.channels.terminal.postman import Postman
from nanotasks.channels.terminal.protocol import CHANNEL

_NAMES_S = 1.0


class Office:
    """One per gateway; its methods belong to the gateway's event loop."""

    def __init__(self, central: Database, accept: AcceptCallable, assistant_name: str) -> None:
        self._central = central
        self._accept = accept
        self._assistant_name = assistant_name
        self._names: set[str] = set()
        self._names_until = 0.0
        self.postman = Postman(central, on_letter=lambda chat: self.outcomes.hurry(chat))
        self.outcomes = Outcomes(central, self.postman.bring)

    async def accept(self, message: InboundMessage) -> Accepted:
        """Hand a message to intake; returns once it is committed."""
        return await asyncio.to_thread(self._accept, message)

    async def is_group_chat(self, chat: str) -> bool:
        """Whether a terminal chat is registered as a group."""

        def read() -> bool:
            with self._central.read() as session:
                return addressing.is_group_chat(session, CHANNEL, chat)

        return await asyncio.to_thread(read)

    async def names_agent(self, text: str) -> bool:
        """Whether a text names an agent; a new agent's name is known within a second."""

        def read() -> set[str]:
            with self._central.read() as session:
                return addressing.agent_names(session, self._assistant_name)

        if time.monotonic() > self._names_until:
            self._names = await asyncio.to_thread(read)
            self._names_until = time.monotonic() + _NAMES_S
        return addressing.names_somebody(text, self._names)
