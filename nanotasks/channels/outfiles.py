"""Files of an outbound message, kept in a folder by channels that have no place of their own for them.

The caller names the files in a row or a line that it writes afterwards; nobody looks at them before that, so
they are written in place, and a second try writes the same bytes again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from nanotasks.channels.contract import OutboundFile
from nanotasks.domain.names import is_safe_name

_NAME_BYTES = 200
_DIGEST_DIGITS = 24
_NOT_PLAIN = re.compile(rb"[^A-Za-z0-9._-]|^\.")


def path_component(identifier: str) -> str:
    """One file name for any identifier, different for different ones.

    What is not a plain character, and a dot in front, is percent-encoded; a long result ends in a digest instead.
    """
    raw = identifier.encode("utf-8", "surrogatepass")
    encoded = _NOT_PLAIN.sub(lambda match: b"%%%02X" % match[0][0], raw).decode() or "%"
    if len(encoded) <= _NAME_BYTES:
        return encoded
    digest = hashlib.sha256(raw).hexdigest()[:_DIGEST_DIGITS]
    return f"{encoded[: _NAME_BYTES - _DIGEST_DIGITS - 1]}%{digest}"


def file_names(files: Sequence[OutboundFile]) -> list[str]:
    """A safe name for each file, all different: its own where that is possible, else `file-<number>`."""
    names: list[str] = []
    for number, file in enumerate(files, start=1):
        name = file.name if _may_keep(file.name) else f"file-{number}"
        while name in names:
            name = f"{number}-{name}"
        names.append(name)
    return names


def _may_keep(name: str) -> bool:
    return (
        is_safe_name(name)
        and name.isprintable()
        and not name.startswith(".")
        and len(name.encode("utf-8", "surrogatepass")) <= _NAME_BYTES
    )


def keep(folder: Path, files: Sequence[OutboundFile]) -> list[Path]:
    """Write the files into `folder`, safe on disk, and return their paths. Raises `OSError`."""
    if not files:
        return []
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        names = file_names(files)
        for name, file in zip(names, files, strict=True):
            _write(directory, name, file.data)
        os.fsync(directory)
    finally:
        os.close(directory)
    return [folder / name for name in names]


def _write(directory: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
