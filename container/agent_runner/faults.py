"""Crash points of the runner: named places where a test makes it die, fail or hang.

The host's `faults` describes `NANOTASKS_FAULT` and lists the points. The host hands the variable on; without it a
point is one comparison. Hits are counted in this process, or in the file that `NANOTASKS_FAULT_TALLY` names.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter

_ERRORS = {"busy": "database is locked", "enospc": "database or disk is full"}


_TEXT = os.environ.get("NANOTASKS_FAULT", "")
_TALLY = os.environ.get("NANOTASKS_FAULT_TALLY", "")
_hits: Counter[str] = Counter()


def point(name: str) -> None:
    """Reach a point of the runner."""
    if not (_TEXT or _TALLY):
        return
    hit = _count(name)
    for word in _plans().split(","):
        wanted, *parts = word.strip().split(":")
        nth = next((part for part in parts if part == "*" or part.isdecimal()), "1")
        if wanted == name and nth in ("*", str(hit)):
            _act(next((part for part in parts if part[0].isalpha()), "kill9"))


def _plans() -> str:
    if not _TEXT.startswith("@"):
        return _TEXT
    try:
        with open(_TEXT[1:], encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _count(name: str) -> int:
    _hits[name] += 1
    if not _TALLY:
        return _hits[name]
    handle = os.open(_TALLY, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, f"{name} {time.monotonic_ns() // 1_000_000}\n".encode())
        end = os.lseek(handle, 0, os.SEEK_CUR)
        return sum(line.startswith(f"{name} ") for line in os.pread(handle, end, 0).decode().split("\n"))
    finally:
        os.close(handle)


def _act(action: str) -> None:
    verb, _, amount = action.partition("=")
    if verb in ("kill9", "stop"):
        os.kill(os.getpid(), signal.SIGKILL if verb == "kill9" else signal.SIGSTOP)
    elif verb in ("hang", "sleep"):
        time.sleep(86_400 if verb == "hang" else float(amount or 5))
    elif verb in _ERRORS:
        raise sqlite3.OperationalError(_ERRORS[verb])
    else:
        raise RuntimeError("a fault that a test asked for")
