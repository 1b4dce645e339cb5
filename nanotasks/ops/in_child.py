"""Calling a function in a forked process: what it imports and opens is gone with it.

For processes that fork others later, or that should stay small: they must not have a database, a thread or a
Docker client of their own. The caller must have one thread.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from nanotasks.errors import NanotasksError

T = TypeVar("T")

_DEFAULT_AGAIN = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class ChildEndedError(NanotasksError):
    """A process that prepared something ended by itself."""


def in_child(work: Callable[[], T]) -> T:
    """Call `work` in a forked process, and return or raise what it does."""
    sys.stdout.flush()
    sys.stderr.flush()
    told_read, told_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told_read)
        _work_off(work, told_write)
    os.close(told_write)
    with os.fdopen(told_read, "rb") as pipe:
        told = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not told:
        raise ChildEndedError(why=f"Its exit code is {code}.")
    done, value = pickle.loads(told)
    if not done:
        raise value
    result: T = value
    return result


def _work_off(work: Callable[[], object], told: int) -> NoReturn:
    code = 1
    try:
        for number in _DEFAULT_AGAIN:
            signal.signal(number, signal.SIG_DFL)
        outcome: tuple[bool, object]
        try:
            outcome = (True, work())
        except Exception as error:
            error.__cause__ = error.__context__ = None
            outcome = (False, error)
        with os.fdopen(told, "wb") as pipe:
            pickle.dump(outcome, pipe)
        code = 0
    finally:
        os._exit(code)
