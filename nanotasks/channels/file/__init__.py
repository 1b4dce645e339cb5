"""The `file` channel: messages come from JSONL files, answers are appended to one JSONL file per chat.

For scripts, tests and data sets. Inbound: `nanotasks intake replay FILE.jsonl` (`replay.py`), for any channel.
Outbound: `<file_dir>/<chat>.jsonl` (`sender.py`), files beside it.
"""

from __future__ import annotations

from pathlib import Path

from nanotasks.channels.contract import Adapter, Capabilities, Sender
from nanotasks.settings import Settings


def directory(settings: Settings) -> Path:
    """The folder of the outbound files: NANOTASKS_FILE_DIR, or `channels/file` in the data directory."""
    if settings.file_dir:
        return Path(settings.file_dir).expanduser().absolute()
    return settings.data_dir / "channels" / "file"


def _capabilities(settings: Settings) -> Capabilities:
    return Capabilities(
        supports_threads=settings.file_threads,
        idempotent=True,
        supports_edits=True,
        supports_reactions=True,
    )


def _sender(settings: Settings) -> Sender:
    from nanotasks.channels.file.sender import FileSender

    return FileSender(directory(settings))


ADAPTER = Adapter("file", _capabilities, sender=_sender)
