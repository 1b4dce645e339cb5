"""Taking the attachments out of a message's content and putting them where the agent can open them.

An adapter hands attachments over as base64 `data` in the content; the intake moves large ones to the central
database and leaves a `blobId`. Either becomes a file in the inbox, and `localPath` takes its place (NanoClaw 2's
rule). An attachment that cannot be stored keeps what it has, and the message is delivered all the same.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from nanotasks.domain.base64_text import decode_base64
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.names import derive_attachment_name, unique_name
from nanotasks.errors import HostileFileError
from nanotasks.session.files import RefusedFile, is_file_name, write_inbox_file
from nanotasks.session.layout import SessionFolder

DATA = "data"
BLOB = "blobId"
# A file name has at most 255 bytes, and a character four. Longer names keep their beginning and their extension.
_MAX_NAME_BYTES = 240
_KEPT_CHARACTERS = 40
# Not every file system takes every name, and no later try mends that.
_NAMELESS = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)


@dataclass(frozen=True)
class Extracted:
    """The content to be stored, and the attachments that stayed behind."""

    content: str
    refused: tuple[RefusedFile, ...] = ()


def extract_attachments(
    folder: SessionFolder,
    message_id: str,
    content: str,
    timestamp_ms: int,
    blob: Callable[[str], bytes | None] | None = None,
) -> Extracted:
    """Store the attachments of a message. `blob` gives the bytes of a `blobId`, or None when they are gone.

    Repeating it stores the same files under the same names: an attachment without a safe name is called after
    `timestamp_ms`, and the second of a name `photo-2.jpg`. Content that is no JSON object with a list of
    attachments is returned as it is.
    """
    if '"attachments"' not in content:
        return Extracted(content)
    try:
        message = json.loads(content)
    except (ValueError, RecursionError):
        return Extracted(content)
    attachments = message.get("attachments") if isinstance(message, dict) else None
    if not isinstance(attachments, list):
        return Extracted(content)
    refused: list[RefusedFile] = []
    taken: set[str] = set()
    stored = False
    for attachment in attachments:
        if isinstance(attachment, dict) and (isinstance(attachment.get(DATA), str) or attachment.get(BLOB)):
            name = _name(attachment, timestamp_ms, taken)
            taken.add(name)
            try:
                path = write_inbox_file(folder, message_id, name, _bytes(attachment, blob))
            except HostileFileError as error:
                refused.append(RefusedFile(name, str(error)))
                continue
            except OSError as error:
                if error.errno not in _NAMELESS:
                    raise
                refused.append(RefusedFile(name, f"{error.strerror}."))
                continue
            attachment.pop(DATA, None)
            attachment.pop(BLOB, None)
            attachment.update(name=name, localPath=path)
            stored = True
    return Extracted(dumps(message) if stored else content, tuple(refused))


def _bytes(attachment: dict[str, Any], blob: Callable[[str], bytes | None] | None) -> bytes:
    data = attachment.get(DATA)
    if isinstance(data, str):
        return decode_base64(data)
    found = blob(str(attachment[BLOB])) if blob else None
    if found is None:
        raise HostileFileError("Its bytes are gone.")
    return found


def _name(attachment: dict[str, Any], timestamp_ms: int, taken: set[str]) -> str:
    name = derive_attachment_name(attachment, timestamp_ms)
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        name = PurePosixPath(name).stem[:_KEPT_CHARACTERS] + PurePosixPath(name).suffix
    if not is_file_name(name):
        name = f"attachment-{timestamp_ms}"
    path = PurePosixPath(name)
    return unique_name(path.stem, lambda stem: stem + path.suffix in taken) + path.suffix
