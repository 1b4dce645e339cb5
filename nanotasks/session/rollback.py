"""Rolling back a dead writer's commit on a private copy of outbound.db.

Rolling back is writing, and the host never writes the agent's files. So the database and its journal are copied into
a folder that only the host uses, SQLite does its work there, and the copy is read. The journal is the agent's too:

- one that names a super-journal would make SQLite delete files by names that the agent chose. Only a transaction
  over several databases makes one, which no runner does, so it is refused;
- its header says how large the database was: SQLite would grow the file to that size, so it is limited.

The copies are removed as soon as the reader has opened its own; what a crash leaves is removed by the next copy.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from nanotasks.errors import HostileFileError
from nanotasks.session import directories
from nanotasks.session.errors import OutboundBusyError
from nanotasks.session.statements import queries

MAX_BYTES = 1 << 30
_FOLDER = ".rollback"
_MAGIC = bytes.fromhex("d9d505f920a163d7")
# After the magic: count of records, nonce, pages of the database before the commit, sector size, page size.
_HEADER = struct.Struct(">8sIIIII")
_CHUNK = 1 << 20


@contextmanager
def rolled_back_copy(root_path: Path, root: int, file: int, journal: int, deadline: float) -> Iterator[str]:
    """The path, below the root, of a whole copy of `file`; it is removed at the end. The caller holds the root's lock.

    Raises `HostileFileError` for a journal that is no honest runner's, `OutboundBusyError` at the deadline.
    """
    _check_sizes(file, journal)
    directories.remove(root, _FOLDER)
    os.mkdir(_FOLDER, 0o700, dir_fd=root)
    try:
        with directories.opened(root_path, _FOLDER) as folder:
            _copy(file, folder, "outbound.db", deadline)
            _copy(journal, folder, "outbound.db-journal", deadline)
            _check_journal(folder, "outbound.db-journal")
        _roll_back(root_path / _FOLDER / "outbound.db")
        yield f"{_FOLDER}/outbound.db"
    finally:
        directories.remove(root, _FOLDER)


def _check_sizes(file: int, journal: int) -> None:
    if os.fstat(file).st_size + os.fstat(journal).st_size > MAX_BYTES:
        raise OutboundBusyError(
            why="It is too large to be rolled back on a copy.", fix="The next runner of the session rolls it back."
        )


def _check_journal(folder: int, name: str) -> None:
    """Look at the copy, which nobody can change any more."""
    journal = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        _check_content(journal)
    finally:
        os.close(journal)


def _check_content(journal: int) -> None:
    header = os.pread(journal, _HEADER.size, 0)
    if len(header) == _HEADER.size:
        _, _, _, pages, _, page_size = _HEADER.unpack(header)
        if page_size == 0 or pages * page_size > MAX_BYTES:
            raise HostileFileError("The journal of outbound.db claims an impossible size.")
    if os.pread(journal, len(_MAGIC), max(0, os.fstat(journal).st_size - len(_MAGIC))) == _MAGIC:
        raise HostileFileError(
            "The journal of outbound.db names a super-journal.",
            why="Rolling it back would delete a file that the journal chose.",
        )


def _copy(source: int, folder: int, name: str, deadline: float) -> None:
    target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    with os.fdopen(target, "wb") as output:
        offset = 0
        while chunk := os.pread(source, _CHUNK, offset):
            if time.monotonic() > deadline or offset > MAX_BYTES:
                raise OutboundBusyError(why="Copying it took too long.", fix="It is tried again by itself.")
            output.write(chunk)
            offset += len(chunk)


def _roll_back(path: Path) -> None:
    connection = sqlite3.connect(f"file:{quote(bytes(path))}?mode=rw", uri=True, isolation_level=None)
    try:
        connection.execute(queries("outbound_queries")["roll_back"]).fetchall()
    finally:
        connection.close()
