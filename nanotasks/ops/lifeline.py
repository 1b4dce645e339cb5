"""Ends a process when the one that started it is gone, however that one ended.

The parent keeps the writing end of a pipe open and never writes; every child inherits the reading end. When the
parent dies, even by kill -9, the kernel closes the pipe, and the child's watching thread asks its own process to
stop, and ends it when it does not within a grace. Programs that are not ours ask the kernel instead.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


class Lifeline:
    """One pipe. Made in the parent, before it forks."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def hold(self, grace_s: float, on_lost: Callable[[], None] | None = None) -> None:
        """In a child: watch the parent. When it is gone, call `on_lost` (default: SIGTERM to this process), then
        end this process after `grace_s` seconds if it still runs."""
        self.give_up_parent_end()
        thread = threading.Thread(target=self._watch, args=(grace_s, on_lost), name="lifeline", daemon=True)
        thread.start()

    def give_up_parent_end(self) -> None:
        """In a child: close the writing end, which would keep the others alive."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def cut(self) -> None:
        """In the parent: let every child end."""
        self.give_up_parent_end()

    def close(self) -> None:
        """In a grandchild: let go of both ends; its own parent watches."""
        self.give_up_parent_end()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1

    def fileno(self) -> int:
        """The reading end; readable (end of file) once the parent is gone."""
        return self._read

    def _watch(self, grace_s: float, on_lost: Callable[[], None] | None) -> None:
        while os.read(self._read, 1):
            pass
        if on_lost is None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            on_lost()
        time.sleep(grace_s)
        os._exit(75)


def die_with_parent() -> None:
    """Called in a new child: the kernel sends it SIGTERM when its parent ends (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
