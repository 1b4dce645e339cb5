"""The kernel's notices about entries of a folder (inotify), by descriptor, without a dependency.

A folder is watched through an open descriptor of it, so that nothing that its owner puts in the folder's place is
ever followed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

IN_CLOSE_WRITE = 0x00000008
IN_MOVED_TO = 0x00000080
IN_DELETE = 0x00000200
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000
_IN_ONLYDIR = 0x01000000
_IN_NONBLOCK = os.O_NONBLOCK
_IN_CLOEXEC = os.O_CLOEXEC

_HEADER = struct.Struct("iIII")
_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True)
class Event:
    """What happened to `name` in the folder of one watch; `watch` is -1 when events were lost."""

    watch: int
    mask: int
    name: str


class Inotify:
    """One inotify instance. Raises `OSError` where the kernel has none left (a user may have 128) or none at all."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._handle: int = self._check(self._libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
        except AttributeError:
            raise OSError(errno.ENOSYS, "no inotify on this system") from None

    def fileno(self) -> int:
        """For `select.poll`: readable when there are events."""
        return self._handle

    def add(self, folder: int, mask: int) -> int:
        """Watch the folder of an open descriptor, which may be closed afterwards; returns the watch's number."""
        path = f"/proc/self/fd/{folder}".encode()
        return self._check(self._libc.inotify_add_watch(self._handle, path, mask | _IN_ONLYDIR))

    def remove(self, watch: int) -> None:
        """End a watch; one that ended by itself is passed over."""
        self._libc.inotify_rm_watch(self._handle, watch)

    def read(self) -> list[Event]:
        """The events so far; empty when there are none."""
        try:
            return list(_events(os.read(self._handle, _BUFFER_BYTES)))
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self._handle)

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _events(data: bytes) -> Iterator[Event]:
    offset = 0
    while offset < len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        name = data[offset : offset + length].rstrip(b"\0")
        offset += length
        yield Event(watch, mask, os.fsdecode(name))
