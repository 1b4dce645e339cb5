"""Writing into folders that an agent can change: through a directory descriptor, following no link.

The caller holds the folder's descriptor (`session.directories`). What an agent put in the place of a file, be it a
link or a folder, is replaced, never written through.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping

from nanotasks.session import directories

_MAX_COMPARED_BYTES = 1024 * 1024


def replace(folder: int, name: str, text: str) -> None:
    """Make `name` a file with this text, atomically; nothing is written when it is that already."""
    content = text.encode()
    if _read(folder, name) == content:
        return
    temporary = f".new-{secrets.token_hex(6)}"
    _create(folder, temporary, content)
    try:
        found = directories.entry(folder, name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            directories.remove(folder, name)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def create(folder: int, name: str, text: str) -> None:
    """Make the file when nothing has that name; what is there stays."""
    try:
        _create(folder, name, text.encode())
    except FileExistsError:
        return


def link(folder: int, name: str, target: str) -> None:
    """Make `name` a symbolic link to `target`, replacing another link; anything else that is there stays."""
    found = directories.entry(folder, name)
    if found is not None:
        if not stat.S_ISLNK(found.st_mode) or os.readlink(name, dir_fd=folder) == target:
            return
        os.unlink(name, dir_fd=folder)
    os.symlink(target, name, dir_fd=folder)


def links(parent: int, name: str, wanted: Mapping[str, str]) -> None:
    """Make the folder `name` hold exactly these links, target by name; what is not a link stays as it is."""
    inner = folder(parent, name)
    try:
        for present in names(inner):
            found = directories.entry(inner, present)
            if present not in wanted and found is not None and stat.S_ISLNK(found.st_mode):
                os.unlink(present, dir_fd=inner)
        for one, target in wanted.items():
            link(inner, one, target)
    finally:
        os.close(inner)


def names(folder: int) -> list[str]:
    """What a folder holds, in alphabetical order."""
    return sorted(os.listdir(folder))


def folder(parent: int, name: str) -> int:
    """A descriptor of a real folder called `name`, made when it is missing, in place of anything else that is there."""
    found = directories.entry(parent, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        directories.remove(parent, name)
    directories.make(parent, name)
    return directories.enter(parent, name)


def _create(parent: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
        os.fchmod(file.fileno(), directories.FILE_MODE)
        file.write(content)


def _read(parent: int, name: str) -> bytes | None:
    """The content of a regular file of moderate size; None for anything else."""
    try:
        opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return None
    try:
        facts = os.fstat(opened)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MAX_COMPARED_BYTES:
            return None
        return os.read(opened, _MAX_COMPARED_BYTES)
    finally:
        os.close(opened)
