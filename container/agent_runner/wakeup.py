"""Waking the loop: by a commit in inbound.db (inotify), by another thread or a signal (a pipe), or by time.

inbound.db is in rollback-journal mode, so the removal of its journal is the commit; the file itself changes earlier.
The watch is on the real folder: inbound.db may be a link. Where inotify is missing or out of instances (Linux gives
one user 128), `wait` compares the times of the files instead, some times a second. The loop looks at its timeout in
any case, because time makes rows due without any commit.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time

_DELETE, _MOVED_TO, _DELETE_SELF, _MOVE_SELF = 0x200, 0x80, 0x400, 0x800
_OVERFLOW, _IGNORED = 0x4000, 0x8000
_ONLYDIR = 0x01000000
_EVENT = struct.Struct("iIII")
# Between two looks at the files' times: 40 microseconds of CPU per second of waiting.
_STAT_S = 0.05


class Wakeup:
    """One waiter, the main thread; `ring` may be called from anywhere, also from a signal handler."""

    def __init__(self, watched: str, *, use_inotify: bool = True) -> None:
        self._watched = watched
        self._use_inotify = use_inotify
        self._inotify: int | None = None
        self._names: tuple[bytes, ...] = ()
        self._seen: tuple[int, bool] | None = None
        self._bell_out, self._bell_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        self._poll = select.poll()
        self._poll.register(self._bell_out, select.POLLIN)

    @property
    def watching(self) -> bool:
        """Whether a commit wakes the waiter."""
        return self._inotify is not None

    def ring(self) -> None:
        try:
            os.write(self._bell_in, b"!")
        except OSError:
            pass  # the pipe is full, so the waiter is about to wake anyway; or it is closed

    def watch(self) -> None:
        """Start watching if that is not so yet. Look after it: what was committed before made no sound."""
        if self._inotify is not None or not self._use_inotify:
            return
        real = os.path.realpath(self._watched)
        name = os.fsencode(os.path.basename(real))
        self._names = (name, name + b"-journal")
        self._inotify = _watch_folder(os.path.dirname(real))
        if self._inotify is not None:
            self._poll.register(self._inotify, select.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Until something may have happened, at most `timeout_s`. Sounds of the past are taken with it."""
        deadline = time.monotonic() + timeout_s
        before = None if self.watching else self._seen
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            ready = self._poll.poll((left_s if self.watching else min(left_s, _STAT_S)) * 1000)
            if any(self._heard(fd) for fd, _ in ready):
                return
            if not self.watching:
                self._seen = self._times()
                if before is not None and self._seen != before:
                    return
                before = self._seen
            if not ready and time.monotonic() >= deadline:
                return

    def _times(self) -> tuple[int, bool]:
        """What a commit changes: the file while it is written, the journal's presence when it is done."""
        real = os.path.realpath(self._watched)
        try:
            changed = os.stat(real).st_mtime_ns
        except OSError:
            changed = 0
        return changed, os.path.exists(real + "-journal")

    def close(self) -> None:
        self._unwatch()
        os.close(self._bell_out)
        bell, self._bell_in = self._bell_in, -1  # its number may soon be another file's
        os.close(bell)

    def _heard(self, fd: int) -> bool:
        """Take what `fd` has to say; False when it concerns somebody else's file in the same folder."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if fd == self._bell_out:
            return True
        heard, offset = False, 0
        while offset < len(data):
            _, mask, _, length = _EVENT.unpack_from(data, offset)
            name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            if mask & (_DELETE_SELF | _MOVE_SELF | _IGNORED):
                self._unwatch()  # the folder is gone; the next look finds its successor
                return True
            heard = heard or bool(mask & _OVERFLOW) or name in self._names
        return heard

    def _unwatch(self) -> None:
        if self._inotify is not None:
            self._poll.unregister(self._inotify)
            os.close(self._inotify)
            self._inotify = None


def _watch_folder(folder: str) -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    except (AttributeError, OSError):
        return None
    if fd < 0:
        return None
    mask = _DELETE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
    if libc.inotify_add_watch(fd, os.fsencode(folder), mask) < 0:
        os.close(fd)
        return None
    return fd


def _pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return reader, writer
