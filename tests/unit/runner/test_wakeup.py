"""Being woken by a commit."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runner.wakeup import Wakeup


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database behind a link, as in our folders."""
    (tmp_path / "host").mkdir()
    (tmp_path / "workspace").mkdir()
    link = tmp_path / "workspace" / "inbound.db"
    link.symlink_to("../host/inbound.db")
    commit(link)
    return link


@pytest.fixture
def wakeup(database: Path) -> Iterator[Wakeup]:
    made = Wakeup(str(database))
    made.watch()
    yield made
    made.close()


def commit(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE IF NOT EXISTS t (x)")
    db.execute("INSERT INTO t VALUES (1)")
    db.commit()
    db.close()


def waited(wakeup: Wakeup, timeout_s: float) -> float:
    began = time.monotonic()
    wakeup.wait(timeout_s)
    return time.monotonic() - began


def test_a_commit_wakes(wakeup: Wakeup, database: Path) -> None:
    """Through the link."""
    assert wakeup.watching
    commit(database)
    assert waited(wakeup, 5) < 1


def test_an_open_transaction_does_not(wakeup: Wakeup, database: Path) -> None:
    """The file may change before the commit; the removal of the journal is the commit."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 50)
    assert waited(wakeup, 0.2) > 0.19
    db.execute("COMMIT")
    assert waited(wakeup, 5) < 1
    db.close()


def test_other_files_of_the_folder_do_not(wakeup: Wakeup, database: Path) -> None:
    """Under the original's layout our own outbound.db lies beside it."""
    commit(database.resolve().with_name("outbound.db"))
    assert waited(wakeup, 0.2) > 0.19


def test_a_bell_wakes_from_another_thread(wakeup: Wakeup) -> None:
    """Also one that rang before the wait; many rings are one."""
    for _ in range(100_000):
        wakeup.ring()
    assert waited(wakeup, 5) < 1
    threading.Timer(0.05, wakeup.ring).start()
    wakeup.wait(0)
    assert waited(wakeup, 5) < 2


def test_a_replaced_file_wakes(wakeup: Wakeup, database: Path) -> None:
    """A restored backup is moved into place."""
    real = database.resolve()
    commit(real.with_name("restored.db"))
    real.with_name("restored.db").rename(real)
    assert waited(wakeup, 5) < 1


def test_a_lost_folder_is_watched_again(wakeup: Wakeup, database: Path) -> None:
    """When its successor is there."""
    folder = database.resolve().parent
    folder.rename(folder.with_name("gone"))
    assert waited(wakeup, 5) < 1
    assert not wakeup.watching
    wakeup.watch()
    assert not wakeup.watching
    folder.mkdir()
    wakeup.watch()
    commit(database)
    assert waited(wakeup, 5) < 1


def test_without_inotify_it_is_time_that_wakes(database: Path) -> None:
    """Where the kernel has none left, or never had it."""
    wakeup = Wakeup(str(database), use_inotify=False)
    wakeup.watch()
    assert not wakeup.watching
    commit(database)
    assert 0.09 < waited(wakeup, 0.1) < 1
    wakeup.close()


def test_without_inotify_a_commit_wakes_some_time_later(database: Path) -> None:
    """The file's time tells: a long wait ends within a fraction of a second after a commit."""
    wakeup = Wakeup(str(database), use_inotify=False)
    wakeup.watch()
    waited(wakeup, 0.06)
    later = threading.Timer(0.1, commit, (database,))
    later.start()
    assert waited(wakeup, 5) < 2
    later.join()
    wakeup.close()


def test_ringing_a_closed_bell_is_harmless(database: Path) -> None:
    """A signal may come at the very end."""
    wakeup = Wakeup(str(database))
    wakeup.close()
    wakeup.ring()
