"""The `terminal` channel: chats over a Unix socket of the gateway, with a durable mailbox behind it.

What is sent becomes a row in the central database (`sender.py`, any worker on any host); the gateway shows it to
the clients of its chat and marks it when one of them confirmed it (`server.py`, `connection.py`). So what was sent
while nobody looked is shown on the next connect. `protocol.py` describes the frames, `addressing.py` who is meant.
"""

from __future__ import annotations

from nanotasks.channels.contract import Adapter, Capabilities, Receiver, Sender
from nanotasks.settings import Settings


def _capabilities(_settings: Settings) -> Capabilities:
    return Capabilities(idempotent=True, supports_edits=True, supports_reactions=True, supports_typing=True)


def _sender(settings: Settings) -> Sender:
    from nanotasks.channels.terminal.sender import TerminalSender

    return TerminalSender(settings)


def _receiver(settings: Settings) -> Receiver:
    from nanotasks.channels.terminal.server import TerminalReceiver

    return TerminalReceiver(settings)


ADAPTER = Adapter("terminal", _capabilities, sender=_sender, receiver=_receiver)
