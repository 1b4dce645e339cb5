"""The files that an outbound message names, and their removal once the message is out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nanotasks import logs
from nanotasks.deliver.facts import Round
from nanotasks.session.files import OutboxFile, clear_outbox, outbox_files

_log = logs.get("deliver")

MAX_FILES = 50
# All files of a message are in memory while it is sent; together they may have so many times the size of one.
FILES_OF_A_MESSAGE = 2


def named_files(around: Round, message_out_id: str, content: Mapping[str, Any]) -> Iterator[OutboxFile]:
    """The files in `content.files`, one at a time; what is unsafe, missing or too large is logged and left out."""
    names = content.get("files")
    if not isinstance(names, list):
        return
    limit = around.settings.outbox_max_file_mb * 1024 * 1024
    room = FILES_OF_A_MESSAGE * limit
    for name in names[:MAX_FILES]:
        for file in outbox_files(around.session.folder, message_out_id, [name], min(limit, room)):
            if isinstance(file, OutboxFile):
                room -= len(file.data)
                yield file
            else:
                _log.warning("file_left_out", session=around.session.id, message=message_out_id, reason=file.reason)


def clear(around: Round, message_out_id: str) -> None:
    """Remove the files of a message that is out; a failure is logged, and never sends the message again."""
    reason = clear_outbox(around.session.folder, message_out_id)
    if reason is not None:
        _log.warning("outbox_not_cleared", session=around.session.id, message=message_out_id, reason=reason)
