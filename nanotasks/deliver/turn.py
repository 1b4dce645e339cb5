"""One round of delivery over a session at one time, on its host.

Two rounds do no harm, since every row is claimed; but a session with a long backlog would take all children of a
worker. So a round takes the session's turn, a lock on a file in its folder, and whoever does not get it leaves a mark
and returns. The holder looks for the mark once it has let go, and signals the session again:

    the mark is left before the second try, the lock is released before the look for it

so either that try succeeds or the mark is seen. The lock of a process that dies is free at once, and a mark that it
leaves costs one round.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from nanotasks.session import SessionFolder

_LOCK = ".delivery-turn"
_MARK = ".delivery-wanted"


class Turn:
    """The turn of one session. One without a folder has no agent and no backlog, so everybody has its turn."""

    def __init__(self, folder: SessionFolder) -> None:
        self._mark: Path = folder.root / _MARK
        self._handle: int | None = None
        try:
            self._handle = os.open(folder.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            pass

    def take(self) -> bool:
        """Whether this process has the turn; if not, its holder signals the session again."""
        if self._handle is None:
            return True
        if not self._try():
            self._mark.touch(0o600)
            if not self._try():
                self._close()
                return False
        self._mark.unlink(missing_ok=True)
        return True

    def give_back(self) -> bool:
        """Let go; whether somebody wanted a round meanwhile."""
        if self._handle is None:
            return False
        self._close()
        try:
            self._mark.unlink()
        except FileNotFoundError:
            return False
        return True

    def _close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _try(self) -> bool:
        assert self._handle is not None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
