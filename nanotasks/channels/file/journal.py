"""An append-only file of lines that several processes write, and that a crash at any moment leaves usable.

Writers take turns by a lock on the file. What a crash can leave behind, and what the next writer does:

    a line without its end      was never acknowledged: it is cut off, and its sender comes again
    a whole line, no newline    counts: the newline is added
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK_POLL_S = 0.005
_CHUNK_BYTES = 1024 * 1024
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotAFileError(Exception):
    """Something that is not a regular file has the journal's name."""


@contextmanager
def locked(path: Path, deadline_s: float) -> Iterator[Journal]:
    """The journal at `path`, made when it is missing, mended, and ours for the block.

    Raises `NotAFileError`, `TimeoutError` after `deadline_s` seconds of waiting, or another `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = _open(path)
    try:
        _lock(handle, time.monotonic() + deadline_s)
        journal = Journal(handle)
        if journal.size == 0:
            _sync_directory(path.parent)
        journal.mend()
        yield journal
    finally:
        os.close(handle)


class Journal:
    """A locked, open journal."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def append(self, line: bytes) -> None:
        """Add one line, its newline included; it is on disk afterwards, or not there at all."""
        before = self.size
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, before)
            raise

    def contains(self, text: bytes, *, last_bytes: int | None = None) -> bool:
        """Whether `text` stands in the file, or in its last bytes only."""
        end = self.size
        start = 0 if last_bytes is None else max(0, end - last_bytes)
        overlap = len(text) - 1
        for position in range(start, end, _CHUNK_BYTES):
            if text in os.pread(self._handle, _CHUNK_BYTES + overlap, position):
                return True
        return False

    def mend(self) -> None:
        """Give the last line its newline, or cut it off when it is not whole."""
        size = self.size
        if size == 0 or os.pread(self._handle, 1, size - 1) == b"\n":
            return
        start = self._last_line_start(size)
        if _is_whole(os.pread(self._handle, size - start, start)):
            self.append(b"\n")
        else:
            os.ftruncate(self._handle, start)
            os.fsync(self._handle)

    def _last_line_start(self, end: int) -> int:
        while end > 0:
            start = max(0, end - _CHUNK_BYTES)
            newline = os.pread(self._handle, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return 0


def _is_whole(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _open(path: Path) -> int:
    try:
        handle = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise NotAFileError(str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotAFileError(str(path))
    return handle


def _lock(handle: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(_LOCK_POLL_S)
            continue
        if os.fstat(handle).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "The file was removed meanwhile")
        return


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
