"""Places to wait in: at most half of a worker's children may wait for slow adapters at one time.

A place is a lock on one byte of a file of the host, so that the kernel gives it back when its process dies. Whoever
gets none does not wait: its sends go on in the background.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nanotasks.paths import runtime_dir
from nanotasks.settings import Settings

# Each worker has its own range of bytes; locks may lie beyond the end of the file.
_BYTES_PER_WORKER = 1024

# Locks of this kind belong to a process, so within it a place is taken once.
_mine = threading.Lock()


@contextmanager
def place_to_wait(settings: Settings) -> Iterator[bool]:
    """Take a place for the block; False when none is free."""
    if not _mine.acquire(blocking=False):
        yield False
        return
    try:
        with _locked_byte(settings) as taken:
            yield taken
    finally:
        _mine.release()


@contextmanager
def _locked_byte(settings: Settings) -> Iterator[bool]:
    path = runtime_dir(settings) / "waiting.lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        first = os.getppid() * _BYTES_PER_WORKER
        yield any(_try_lock(handle, first + number) for number in range(settings.worker_concurrency // 2))
    finally:
        os.close(handle)


def _try_lock(handle: int, byte: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
    except OSError:
        return False
    return True


def _start_afresh() -> None:
    global _mine
    _mine = threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)
