"""Giving folders to the agent's user, where the host runs as root and the agent does not.

The owner of the top folder says whom the tree was made for; it is changed last, so that an interrupted walk is
repeated. Afterwards only what the host itself put directly into the folder is looked at, which keeps a start
from walking a large workspace. Links are never followed: the agent chooses them.
"""

from __future__ import annotations

import os
from pathlib import Path


def give_to(folder: Path, uid: int, gid: int) -> None:
    """Make `uid` the owner of `folder` and of what is in it. Raises `OSError`."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        known = os.fstat(top).st_uid == uid
        _give_entries(top, uid, gid, only_others=known)
        if not known:
            os.fchown(top, uid, gid)
    finally:
        os.close(top)


def _give_entries(folder: int, uid: int, gid: int, *, only_others: bool) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            if only_others and found.st_uid == uid:
                continue
            if entry.is_dir(follow_symlinks=False):
                _give_folder(folder, entry.name, uid, gid)
            else:
                os.chown(entry.name, uid, gid, dir_fd=folder, follow_symlinks=False)


def _give_folder(parent: int, name: str, uid: int, gid: int) -> None:
    try:
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        _give_entries(inner, uid, gid, only_others=False)
        os.fchown(inner, uid, gid)
    finally:
        os.close(inner)
