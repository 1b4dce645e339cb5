"""Walking into folders that an agent can change, by directory descriptors, following no link.

A path is looked up again each time it is used, and the agent may put a link in its place between two looks. A
descriptor stays what it was when it was opened, so everything below a session's root goes through these.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nanotasks.errors import HostileFileError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What the host makes is read by the agent's user too, whatever the umask of the host's processes.
FOLDER_MODE, FILE_MODE = 0o755, 0o644
# Entries that one removal looks at: an agent that keeps adding some must not keep the host busy.
_MAX_REMOVALS = 100_000


def enter(parent: int, name: str) -> int:
    """A descriptor of the folder `name` in `parent`. Raises `HostileFileError`, or `FileNotFoundError`."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise HostileFileError(f"{name} is not a folder.", why="Something else was put in its place.") from None
        raise


@contextmanager
def opened(root: Path, *below: str) -> Iterator[int]:
    """A descriptor of `root/…/below`, closed at the end. Only `root` itself may be reached through links.

    Raises `HostileFileError` where a part is no folder, `FileNotFoundError` where one is missing.
    """
    try:
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise HostileFileError(f"{root} is not a folder.", why="Something else was put in its place.") from None
    try:
        for name in below:
            inner = enter(here, name)
            os.close(here)
            here = inner
        yield here
    finally:
        os.close(here)


def entry(parent: int, name: str) -> os.stat_result | None:
    """What the entry itself is, not what it points to; None when there is none."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def names(folder: int) -> list[str]:
    """What the folder holds, in no order."""
    with os.scandir(folder) as entries:
        return [one.name for one in entries]


def make(parent: int, name: str) -> bool:
    """Make a folder that everybody may read, unless it is there; whether it was made.

    Raises `HostileFileError` for anything else there.
    """
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        os.close(enter(parent, name))
        return False
    made = enter(parent, name)
    try:
        os.fchmod(made, FOLDER_MODE)
    finally:
        os.close(made)
    return True


def remove(parent: int, name: str) -> None:
    """Remove whatever `name` is, with all that is in it, and nothing outside it. Raises `OSError`.

    Folders are emptied by moving what they hold up into the topmost one, so that neither depth nor length of a
    path matters; a link is removed, never followed.
    """
    found = entry(parent, name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    top = enter(parent, name)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _empty(top: int) -> None:
    moved = f".removed-{secrets.token_hex(8)}"
    removed = 0
    while inside := names(top):
        for name in inside:
            removed += 1
            if removed > _MAX_REMOVALS:
                raise OSError(errno.ENOTEMPTY, "too many entries", name)
            found = entry(top, name)
            if found is None:
                continue
            if not stat.S_ISDIR(found.st_mode):
                os.unlink(name, dir_fd=top)
                continue
            inner = enter(top, name)
            try:
                for number, child in enumerate(names(inner)):
                    os.rename(child, f"{moved}-{removed}-{number}", src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
