"""The sending half of the `terminal` channel: a row in the mailbox, and a poke for the gateways.

Files are kept below `channels/terminal` in the data directory of the sending host.
"""

from __future__ import annotations

from nanotasks import signals
from nanotasks.central import database, mailbox
from nanotasks.channels.contract import Address, OutboundMessage, Sent, TransientError
from nanotasks.channels.outfiles import keep, path_component
from nanotasks.channels.terminal.protocol import CHANNEL, MAILBOX_TOPIC, TYPING_TOPIC
from nanotasks.clock import now_ms
from nanotasks.errors import DependencyDownError
from nanotasks.settings import Settings


class TerminalSender:
    """Puts messages into the mailbox; the central database is the platform."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        """Put one message unless it is there already. Raises `TransientError`."""
        del deadline_s  # The database's own patience bounds the call.
        address = message.address
        try:
            files = self._keep(message)
            with database(self._settings).write_core() as connection:
                item = mailbox.put(
                    connection,
                    channel_type=CHANNEL,
                    platform_id=address.platform_id,
                    thread_id=address.thread_id,
                    delivery_id=message.delivery_id,
                    kind=message.kind,
                    content=message.content,
                    files=files,
                    now=now_ms(),
                )
        except DependencyDownError as error:
            raise TransientError(error.what, why=error.why, fix=error.fix) from error
        except OSError as error:
            raise TransientError("The files cannot be kept.", why=f"{error.strerror or error}.") from error
        signals.poke(MAILBOX_TOPIC, {"channel_type": CHANNEL, "platform_id": address.platform_id})
        return Sent(str(item))

    def set_typing(self, address: Address) -> None:
        """Tell the clients that look now; nobody else needs to know."""
        signals.poke(TYPING_TOPIC, {"channel_type": CHANNEL, "platform_id": address.platform_id})

    def _keep(self, message: OutboundMessage) -> list[dict[str, object]]:
        folder = self._settings.data_dir / "channels" / CHANNEL / path_component(message.delivery_id)
        return [
            {"name": path.name, "size": len(file.data), "path": str(path), "host": self._settings.host_id}
            for path, file in zip(keep(folder, message.files), message.files, strict=True)
        ]
