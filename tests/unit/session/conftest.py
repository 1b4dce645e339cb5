"""A session's folder, and the ways in which a runner writes into it."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nanotasks.session import SessionFolder

STAMP = "2026-03-01T12:34:56.789Z"
INSERT = """
INSERT INTO messages_out
       (id, seq, in_reply_to, timestamp, deliver_after, kind, platform_id, channel_type, thread_id, content)
VALUES (:id, :seq, :in_reply_to, :timestamp, :deliver_after, :kind, :platform_id, :channel_type, :thread_id, :content)
"""
NULLS = dict.fromkeys(["in_reply_to", "deliver_after", "platform_id", "channel_type", "thread_id"])


def names(folder: Path) -> list[str]:
    """What a folder holds, sorted."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A disk that is full: in the block no file of this process grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_file_to_be_opened() -> Iterator[None]:
    """In the block this process has as many open files as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Runner:
    """Writes outbound.db with plain SQL, as a runner does, or as one should not."""

    def __init__(self, folder: SessionFolder) -> None:
        self.folder = folder
        self.path = folder.outbound_db

    def run(self, *statements: str) -> None:
        """Execute statements in one commit."""
        connection = sqlite3.connect(self.path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    def say(self, *ids: str, **columns: Any) -> None:
        """Add messages with the next odd seqs; `columns` replace what they would hold."""
        connection = sqlite3.connect(self.path)
        for one in ids:
            (highest,) = connection.execute(
                "SELECT coalesce(max(seq), -1) FROM messages_out WHERE typeof(seq) = 'integer'"
            ).fetchone()
            values = {"seq": highest + 2, "timestamp": STAMP, "kind": "chat", "content": f'{{"text":"{one}"}}'}
            connection.execute(INSERT, {**NULLS, "id": one, **values, **columns})
        connection.commit()
        connection.close()

    def ack(self, status: str, ids: Iterable[str], changed: str = "2026-03-01 12:34:56") -> None:
        """Set the ack of messages."""
        connection = sqlite3.connect(self.path)
        connection.executemany(
            "INSERT OR REPLACE INTO processing_ack VALUES (?, ?, ?)", [(one, status, changed) for one in ids]
        )
        connection.commit()
        connection.close()

    def replace_file(self, *statements: str) -> None:
        """Put another database in the place of outbound.db."""
        self.path.unlink()
        self.run(*statements)


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    """The folder of a session that was just created."""
    created = SessionFolder.of(tmp_path / "data", "ag-1", "sess-1")
    created.create()
    return created


@pytest.fixture
def runner(folder: SessionFolder) -> Runner:
    """The session's runner."""
    return Runner(folder)
