"""The process runtime's registry: one locked file per live agent, `<data>/run/agents/<session>.lock`.

The launcher locks the file and appends JSON lines to it: who it is, the agent's pid, at last the exit. A held
lock is a live agent; an unlocked file is one that ended and whose exit was not yet reported. Files are removed
by whoever reported the exit, under the lock, so listing costs what is alive.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanotasks.errors import InvalidError
from nanotasks.owners import process_start_time
from nanotasks.runtimes.contract import Running

_SUFFIX = ".lock"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Record:
    """What a lock file says. `code` is the wait status' exit code (negative for a signal), once it was recorded."""

    running: Running
    launcher: int
    launcher_start: int
    code: int | None

    @property
    def current(self) -> bool:
        """Whether this describes who holds the lock, and not the agent before, or one that is only half started."""
        return self.launcher_lives and self.running.pid is not None and self.code is None

    @property
    def launcher_lives(self) -> bool:
        return process_start_time(self.launcher) == self.launcher_start


class Registry:
    """The lock files of one installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, session_id: str) -> Path:
        """The session's lock file. Raises `InvalidError` for an id that is no plain file name."""
        if not _SAFE_NAME.match(session_id):
            raise InvalidError(f"{session_id!r} cannot name an agent.", fix="Session ids are letters, digits, _ . -")
        return self.folder / f"{session_id}{_SUFFIX}"

    def sessions(self) -> Iterator[str]:
        """Sessions that have a lock file, alive or not."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - runs five times a second
        except FileNotFoundError:
            return
        yield from (name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX))

    def is_locked(self, session_id: str) -> bool:
        """Whether somebody holds the session's lock: launcher or agent is alive."""
        try:
            probe = os.open(self.path(session_id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(probe)
        return False

    def read(self, session_id: str) -> Record | None:
        """The record in the session's lock file; None when there is none, or not yet."""
        try:
            return parse(self.path(session_id).read_text())
        except FileNotFoundError:
            return None

    def holders(self, session_id: str) -> list[int]:
        """Processes that inherited the session's lock: those that have its file open for writing.

        Who only probes the lock has it open for reading.
        """
        found = []
        target = str(self.path(session_id).resolve())
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if os.readlink(descriptor) != target:  # noqa: PTH115
                    continue
                text = (descriptor.parent.parent / "fdinfo" / descriptor.name).read_text()
            except OSError:
                continue
            flags = next(line.split()[1] for line in text.splitlines() if line.startswith("flags:"))
            if int(flags, 8) & os.O_ACCMODE == os.O_RDWR:
                found.append(int(descriptor.parts[2]))
        return found

    def remove(self, session_id: str, instance_id: str | None) -> None:
        """Forget an ended agent (None: a file without a record), unless another one took the file over."""
        path = self.path(session_id)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.fstat(lock)
            record = parse(os.pread(lock, mine.st_size, 0).decode())
            found = record.running.instance_id if record else None
            if found == instance_id and path.stat().st_ino == mine.st_ino:
                path.unlink()
        except (BlockingIOError, FileNotFoundError):
            return
        finally:
            os.close(lock)


def parse(text: str) -> Record | None:
    """The record that the lines of a lock file make; None while the launcher has not written it."""
    facts: dict[str, Any] = {}
    for line in text.splitlines():
        try:
            facts.update(json.loads(line))
        except ValueError:
            continue
    try:
        running = Running(
            session_id=facts["session"],
            instance_id=facts["instance"],
            epoch=facts["epoch"],
            runtime_id=f"{facts['pid']}:{facts['pid_start']}" if "pid" in facts else "",
            started_ms=facts["started_ms"],
            pid=facts.get("pid"),
            pid_start=facts.get("pid_start"),
        )
        return Record(running, facts["launcher"], facts["launcher_start"], facts.get("exit"))
    except KeyError:
        return None
