"""The sending half of the `file` channel: one line of JSON per message, on disk before it counts as sent.

    {"delivery_id", "at", "platform_id", "thread_id", "kind", "content", "files": ["files/<delivery>/<name>", …]}

The number of an attempt is never used twice, so a first attempt has no line yet; it looks only at the end of
the file (which finds an immediate repetition), while a later one searches all of it.
"""

from __future__ import annotations

from pathlib import Path

from nanotasks.channels.contract import DestinationError, OutboundMessage, Sent, TransientError
from nanotasks.channels.file.journal import Journal, NotAFileError, locked
from nanotasks.channels.outfiles import keep, path_component
from nanotasks.clock import now_iso
from nanotasks.domain.compact_json import dumps

TAIL_BYTES = 64 * 1024


class FileSender:
    """Appends messages to `<directory>/<chat>.jsonl`; what the platform calls a message is its delivery id."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        """Append one message unless its line is there already. Raises `TransientError` or `DestinationError`."""
        path = self._directory / f"{path_component(message.address.platform_id)}.jsonl"
        try:
            with locked(path, deadline_s) as journal:
                if not _is_written(journal, message):
                    journal.append(self._line(message))
        except NotAFileError as error:
            raise DestinationError(f"{path} is not a plain file.", fix="Move it away.") from error
        except TimeoutError as error:
            raise TransientError(f"{path} is in use by another writer.") from error
        except OSError as error:
            why = error.strerror or str(error)
            raise TransientError(
                f"{path} cannot be written.", why=f"{why}.", fix="Check the disk and NANOTASKS_FILE_DIR."
            ) from error
        return Sent(message.delivery_id)

    def _line(self, message: OutboundMessage) -> bytes:
        kept = keep(self._directory / "files" / path_component(message.delivery_id), message.files)
        fields = {
            "delivery_id": message.delivery_id,
            "at": now_iso(),
            "platform_id": message.address.platform_id,
            "thread_id": message.address.thread_id,
            "kind": message.kind,
            "content": message.content,
            "files": [str(path.relative_to(self._directory)) for path in kept],
        }
        return dumps(fields).encode("utf-8", "replace") + b"\n"


def _is_written(journal: Journal, message: OutboundMessage) -> bool:
    # A quote inside a value is escaped, so this text stands only where a line begins.
    beginning = dumps({"delivery_id": message.delivery_id}).encode("utf-8", "replace")[:-1] + b","
    return journal.contains(beginning, last_bytes=TAIL_BYTES if message.attempt <= 1 else None)
