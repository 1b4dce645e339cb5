"""SQLite's read lock, taken on a descriptor of ours.

SQLite coordinates by locks on bytes beyond the first gigabyte of the file: PENDING at 0x40000000, RESERVED one
after it, and 510 SHARED ones. A reader passes through PENDING and keeps a read lock on SHARED; a writer announces
itself on RESERVED, and writes to the file only with a write lock on all of SHARED, so never while a reader reads.

The locks taken here belong to the open file description (OFD locks), which conflict with SQLite's own in any
process but, unlike those, are not lost when some other descriptor of the same file is closed. They end with the
descriptor.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time

from nanotasks.session.errors import OutboundBusyError

PENDING = 0x40000000
RESERVED = PENDING + 1
SHARED = PENDING + 2
SHARED_BYTES = 510
_FIRST_PAUSE_S = 0.0002
_LONGEST_PAUSE_S = 0.005


def acquire(file: int, deadline: float) -> None:
    """Keep writers out until `file` is closed. Raises `OutboundBusyError` at the deadline (`time.monotonic()`)."""
    pause = _FIRST_PAUSE_S
    while not _try(file):
        if time.monotonic() + pause > deadline:
            raise OutboundBusyError(why="Somebody keeps it locked.", fix="It is tried again by itself.")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _try(file: int) -> bool:
    # Waiting writers hold PENDING: passing through it lets them go first.
    if not _set(file, fcntl.F_RDLCK, PENDING, 1):
        return False
    shared = _set(file, fcntl.F_RDLCK, SHARED, SHARED_BYTES)
    _set(file, fcntl.F_UNLCK, PENDING, 1)
    return shared


def has_writer(file: int) -> bool:
    """Whether a live process is in the middle of a commit: then a journal beside the file is its own."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, RESERVED, 1))
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def _set(file: int, kind: int, start: int, length: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _flock(kind, start, length))
    except BlockingIOError:
        return False
    return True


def _flock(kind: int, start: int, length: int) -> bytes:
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0)
