"""Getting hold of an outbound.db whose folder belongs to somebody hostile.

SQLite opens files by name. In the agent's folder a name can be a link to another database, a pipe that blocks the
opener, or change between a check and its use; a journal beside the file makes SQLite open, replay and delete what
the journal names (a forged one of 551 bytes made a plain SELECT delete a file elsewhere). So SQLite gets neither
the agent's name nor its neighbours:

    1. link    workspace/outbound.db gets a second name in the session's root, which the agent does not see
    2. check   that name, which nobody can exchange: a regular file with exactly these two names, not in WAL mode
    3. lock    SQLite's read lock, so that no runner writes while we read (shared_lock.py)
    4. journal beside the agent's name: none, or a live writer's, and the file is whole; else it is hot
    5. connect with `immutable=1`: SQLite opens that one file for reading, looks for no journal and takes no lock
    6. unlink  the second name

A crash between 1 and 6 leaves the second name; the next reader removes it first. Readers of one session take turns
for these steps through the lock of the root folder. The agent can still write into the file without the lock: what
SQLite then reads is damaged or untrue, as anything that the agent wrote may be.

A hot journal means that a writer died in the middle of a commit, and the file is a mixture. The next runner rolls
it back. Where none lives, `agent_is_dead` reads from a rolled-back copy (rollback.py) instead of raising
`HotJournalError`.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import quote

from nanotasks.errors import HostileFileError
from nanotasks.session import directories, shared_lock
from nanotasks.session.errors import HotJournalError, OutboundBusyError
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rollback import rolled_back_copy

NAME = "outbound.db"
JOURNAL = "outbound.db-journal"
_SECOND_NAME = ".outbound-view"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TURN_PAUSE_S = 0.001
# Bytes 18 and 19 of an SQLite file are 1 for a rollback journal and 2 for WAL.
_FORMAT_OFFSET = 18
_ROLLBACK_FORMAT = b"\x01\x01"


@contextmanager
def captured(
    folder: SessionFolder, patience: float, deadline: float, *, agent_is_dead: bool = False
) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the session's outbound.db, on which no writer can change what is read.

    Raises `HostileFileError` when the file is not what it should be, `OutboundBusyError` when it stays locked until
    `patience` or is not copied by `deadline` (both `time.monotonic()`), `HotJournalError` when it must be rolled back
    first.
    """
    with ExitStack() as held:
        try:
            root = held.enter_context(directories.opened(folder.root))
            workspace = held.enter_context(directories.opened(folder.root, "workspace"))
        except FileNotFoundError as error:
            raise HostileFileError(f"The session {folder.root.name} has no workspace.", why=f"{error}.") from error
        with _turn(root, patience):
            file = _open(root, workspace)
            held.callback(os.close, file)
            try:
                shared_lock.acquire(file, patience)
                _check_format(file)
                journal = _hot_journal(file, workspace)
                if journal is None:
                    connection = _connect(folder, _SECOND_NAME)
                else:
                    held.callback(os.close, journal)
                    connection = _connect_to_copy(folder, root, file, journal, deadline, agent_is_dead)
                held.callback(connection.close)
            finally:
                os.unlink(_SECOND_NAME, dir_fd=root)
        yield connection


@contextmanager
def _turn(root: int, deadline: float) -> Iterator[None]:
    while True:
        try:
            fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OutboundBusyError(why="Other readers keep it.", fix="It is tried again by itself.") from None
            time.sleep(_TURN_PAUSE_S)
    try:
        yield
    finally:
        fcntl.flock(root, fcntl.LOCK_UN)


def _open(root: int, workspace: int) -> int:
    """Give the agent's file its second name and open it by that."""
    directories.remove(root, _SECOND_NAME)
    try:
        os.link(NAME, _SECOND_NAME, src_dir_fd=workspace, dst_dir_fd=root, follow_symlinks=False)
    except OSError as error:
        raise HostileFileError("outbound.db cannot be opened.", why=f"{error.strerror}.") from error
    try:
        _check_entry(os.stat(_SECOND_NAME, dir_fd=root, follow_symlinks=False), NAME, links=2)
        return os.open(_SECOND_NAME, _READ, dir_fd=root)
    except BaseException:
        os.unlink(_SECOND_NAME, dir_fd=root)
        raise


def _check_entry(found: os.stat_result, name: str, *, links: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise HostileFileError(f"{name} is not a regular file.")
    if found.st_nlink != links:
        raise HostileFileError(f"{name} has other names.", why="A second hard link could be anybody's file.")


def _check_format(file: int) -> None:
    if os.pread(file, 2, _FORMAT_OFFSET) != _ROLLBACK_FORMAT:
        raise HostileFileError(
            "outbound.db is not a database with a rollback journal.",
            why="It is empty, damaged, or in WAL mode, which is not coherent across a container's mounts.",
        )


def _hot_journal(file: int, workspace: int) -> int | None:
    """The journal that must be rolled back before the file can be read, opened; None when there is none.

    SQLite's own rule: it exists, it is not empty, no writer lives, and its first byte is not zero.
    """
    found = directories.entry(workspace, JOURNAL)
    if found is None:
        return None
    _check_entry(found, JOURNAL, links=1)
    if found.st_size == 0 or shared_lock.has_writer(file):
        return None
    try:
        journal = os.open(JOURNAL, _READ, dir_fd=workspace)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HotJournalError(why=f"{JOURNAL}: {error.strerror}.") from error
    try:
        _check_entry(os.fstat(journal), JOURNAL, links=1)
        hot = os.pread(journal, 1, 0) not in (b"", b"\0")
    except BaseException:
        os.close(journal)
        raise
    if hot:
        return journal
    os.close(journal)
    return None


def _connect_to_copy(
    folder: SessionFolder, root: int, file: int, journal: int, deadline: float, agent_is_dead: bool
) -> sqlite3.Connection:
    if not agent_is_dead:
        raise HotJournalError(
            why="A process died in the middle of a commit.", fix="The next runner of the session rolls it back."
        )
    with rolled_back_copy(folder.root, root, file, journal, deadline) as copy:
        return _connect(folder, copy)


def _connect(folder: SessionFolder, name: str) -> sqlite3.Connection:
    path = quote(bytes(folder.root / name))
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, isolation_level=None)
