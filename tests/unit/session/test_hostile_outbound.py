"""Everything an agent can put in the place of outbound.db, or into it. Nothing hangs, nothing is written, nothing
outside is touched, and each is told apart from an empty file."""

from __future__ import annotations

import os
import random
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nanotasks.errors import HostileFileError
from nanotasks.session import HotJournalError, OutboundBusyError, ReadLimits, SessionFolder, open_outbound
from nanotasks.session.rows import OutboundRow
from tests.unit.session.conftest import Runner, names

LIMITS = ReadLimits(deadline_s=0.3, max_value_bytes=1_000_000)
COLUMNS = "id, seq, in_reply_to, timestamp, deliver_after, kind, platform_id, channel_type, thread_id, content"
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


def read_everything(folder: SessionFolder, *, agent_is_dead: bool = False) -> list[object]:
    with open_outbound(folder, LIMITS, agent_is_dead=agent_is_dead) as opened:
        opened.claims()
        opened.acks(["m1"])
        opened.container_state()
        opened.max_seq(1000)
        opened.max_rowid()
        return list(opened.messages_after(0, 1000))


def assert_refused(folder: SessionFolder, why: str) -> None:
    started = time.monotonic()
    with pytest.raises(HostileFileError, match=why):
        read_everything(folder)
    assert time.monotonic() - started < 5
    assert names(folder.root) == ["host", "workspace"]


# In its place


def test_a_link_is_not_followed(folder: SessionFolder, tmp_path: Path) -> None:
    """Not even to a database that would do."""
    other = SessionFolder.of(tmp_path, "ag-2", "sess-2")
    other.create()
    folder.outbound_db.unlink()
    folder.outbound_db.symlink_to(other.outbound_db)
    assert_refused(folder, "not a regular file")


def test_a_second_name_is_refused(folder: SessionFolder, tmp_path: Path) -> None:
    """A hard link could be to anybody's file."""
    os.link(folder.outbound_db, tmp_path / "other name")
    assert_refused(folder, "has other names")


def test_a_pipe_does_not_block(folder: SessionFolder) -> None:
    """Opening one for reading would wait for a writer."""
    folder.outbound_db.unlink()
    os.mkfifo(folder.outbound_db)
    assert_refused(folder, "not a regular file")


def test_a_folder_is_refused(folder: SessionFolder) -> None:
    """It cannot even be linked."""
    folder.outbound_db.unlink()
    folder.outbound_db.mkdir()
    assert_refused(folder, "cannot be opened")


def test_a_missing_file_is_refused(folder: SessionFolder) -> None:
    """It is not made."""
    folder.outbound_db.unlink()
    assert_refused(folder, "cannot be opened")
    assert not folder.outbound_db.exists()


def test_a_link_in_place_of_the_workspace_is_refused(folder: SessionFolder, tmp_path: Path) -> None:
    """The folder is entered without following links."""
    folder.workspace.rename(tmp_path / "moved")
    folder.workspace.symlink_to(tmp_path / "moved")
    assert_refused(folder, "not a folder")


def test_a_missing_workspace_is_refused(tmp_path: Path) -> None:
    """So is a session that was never created."""
    with pytest.raises(HostileFileError, match="no workspace"), open_outbound(SessionFolder(tmp_path / "none")):
        pass


EXCHANGER = """
import os, sys

mine, trap, spare = sys.argv[1:]
while True:
    os.rename(mine, spare)
    os.rename(trap, mine)
    os.rename(mine, trap)
    os.rename(spare, mine)
"""


@pytest.mark.parametrize("decoy", ["link", "pipe"])
def test_names_that_change_all_the_time_fool_nobody(folder: SessionFolder, runner: Runner, decoy: str) -> None:
    """An agent that exchanges the file thousands of times a second is read truly or refused, and never followed."""
    runner.say("mine")
    outside = folder.root / "theirs.db"
    with sqlite3.connect(outside) as connection:
        connection.execute(f"CREATE TABLE messages_out ({COLUMNS})")
    connection.close()
    trap = folder.workspace / "trap"
    if decoy == "link":
        trap.symlink_to(outside)
    else:
        os.mkfifo(trap)
    paths = (folder.outbound_db, trap, folder.workspace / "spare")
    process = subprocess.Popen([sys.executable, "-c", EXCHANGER, *map(str, paths)])
    try:
        outcomes = {"read": 0, "refused": 0}
        end = time.monotonic() + 20
        while min(outcomes.values()) < 20 and time.monotonic() < end:
            try:
                with open_outbound(folder, LIMITS) as opened:
                    assert [row.id for row in opened.messages_after(0, 10)] == ["mine"]
                outcomes["read"] += 1
            except HostileFileError:
                outcomes["refused"] += 1
        assert min(outcomes.values()) >= 20
    finally:
        process.kill()
        process.wait()


# Journals


def forged_journal(victim: Path, pages: int) -> bytes:
    """A rollback journal that ends in the name of a super-journal, which SQLite deletes when it has rolled back."""
    name = bytes(victim)
    header = struct.pack(">8sIIIII", JOURNAL_MAGIC, 0, 0, pages, 512, 4096).ljust(512, b"\0")
    trailer = struct.pack(">II", len(name), sum(name)) + JOURNAL_MAGIC
    return header + struct.pack(">I", 0x40000000 // 4096 + 1) + name + trailer


@pytest.fixture
def forgery(folder: SessionFolder, tmp_path: Path) -> Path:
    """A forged journal beside outbound.db; the file that it is after."""
    victim = tmp_path / "precious.txt"
    victim.write_text("precious")
    pages = folder.outbound_db.stat().st_size // 4096
    (folder.workspace / "outbound.db-journal").write_bytes(forged_journal(victim, pages))
    return victim


def test_the_forgery_works_on_a_plain_connection(folder: SessionFolder, forgery: Path) -> None:
    """So that the two tests below mean something."""
    connection = sqlite3.connect(folder.outbound_db)
    connection.execute("SELECT * FROM messages_out").fetchall()
    connection.close()
    assert not forgery.exists()


def test_a_forged_journal_deletes_nothing(folder: SessionFolder, forgery: Path) -> None:
    """It looks like that of a dead writer, which is the next runner's to roll back."""
    with pytest.raises(HotJournalError):
        read_everything(folder)
    assert forgery.read_text() == "precious"


def test_a_forged_journal_deletes_nothing_on_the_copy(folder: SessionFolder, forgery: Path) -> None:
    """One that names a super-journal is not rolled back."""
    with pytest.raises(HostileFileError, match="super-journal"):
        read_everything(folder, agent_is_dead=True)
    assert forgery.read_text() == "precious"
    assert names(folder.root) == ["host", "workspace"]


def test_a_journal_of_an_impossible_size_is_refused(folder: SessionFolder) -> None:
    """SQLite would grow the copy to what its header claims."""
    header = struct.pack(">8sIIIII", JOURNAL_MAGIC, 0, 0, 0xFFFFFFF0, 512, 65536).ljust(512, b"\0")
    (folder.workspace / "outbound.db-journal").write_bytes(header)
    with pytest.raises(HostileFileError, match="impossible size"):
        read_everything(folder, agent_is_dead=True)


@pytest.mark.parametrize("agent_is_dead", [False, True])
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        Path.mkdir,
        lambda journal: journal.symlink_to("/etc/passwd"),
        lambda journal: os.link(journal.parent / "spare", journal),
    ],
    ids=["pipe", "folder", "link", "hard link"],
)
def test_a_journal_that_is_no_plain_file_is_refused(
    folder: SessionFolder, put: Callable[[Path], object], agent_is_dead: bool
) -> None:
    """SQLite would open it, and wait for ever at a pipe."""
    (folder.workspace / "spare").write_bytes(b"x")
    put(folder.workspace / "outbound.db-journal")
    with pytest.raises(HostileFileError, match=r"outbound\.db-journal"):
        read_everything(folder, agent_is_dead=agent_is_dead)


def test_a_file_in_wal_mode_is_refused(folder: SessionFolder, runner: Runner) -> None:
    """Reading it would make the host create and write files beside it."""
    connection = sqlite3.connect(folder.outbound_db)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    before = names(folder.workspace)
    assert_refused(folder, "rollback journal")
    assert names(folder.workspace) == before


def test_a_log_and_its_index_beside_the_file_are_not_looked_at(folder: SessionFolder, runner: Runner) -> None:
    """SQLite would delete a log that lies beside an empty database, and map an index."""
    runner.say("o1")
    (folder.workspace / "outbound.db-wal").write_bytes(b"x" * 4096)
    os.mkfifo(folder.workspace / "outbound.db-shm")
    assert [row.id for row in read_everything(folder) if isinstance(row, OutboundRow)] == ["o1"]
    assert (folder.workspace / "outbound.db-wal").read_bytes() == b"x" * 4096


# Inside


def test_garbage_is_refused(folder: SessionFolder) -> None:
    """Whether it begins like a database or not."""
    folder.outbound_db.write_bytes(b"x" * 10_000)
    assert_refused(folder, "not a database")
    folder.outbound_db.write_bytes(b"SQLite format 3\0\x10\x00\x01\x01" + os.urandom(10_000))
    assert_refused(folder, "cannot be read")
    folder.outbound_db.write_bytes(b"")
    assert_refused(folder, "empty")


ENDLESS_MESSAGES = """
CREATE VIEW messages_out AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
SELECT x AS id, x AS seq, NULL AS in_reply_to, x AS timestamp, NULL AS deliver_after, x AS kind, x AS platform_id,
       x AS channel_type, x AS thread_id, x AS content FROM n
"""
ENDLESS_ACKS = """
CREATE VIEW processing_ack AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
SELECT x AS message_id, 'processing' AS status, x AS status_changed FROM n
"""
ENDLESS_STATE = """
CREATE VIEW container_state AS WITH RECURSIVE n(x) AS (SELECT 2 UNION ALL SELECT x + 1 FROM n)
SELECT x AS id, x AS current_tool, x AS tool_declared_timeout_ms, x AS tool_started_at, x AS updated_at FROM n
"""
ACKS = "CREATE TABLE processing_ack (message_id TEXT PRIMARY KEY, status TEXT, status_changed TEXT)"


@pytest.mark.parametrize(
    "statement",
    [
        ENDLESS_MESSAGES,
        "CREATE VIEW messages_out AS SELECT 'a' AS id, 1 AS seq",
        "CREATE VIRTUAL TABLE messages_out USING fts5(id, seq, content)",
        f"CREATE TABLE messages_out ({COLUMNS} GENERATED ALWAYS AS (hex(zeroblob(500000))))",
        f"CREATE TABLE messages_out ({COLUMNS}, extra GENERATED ALWAYS AS (hex(id)) STORED)",
        f"CREATE TABLE messages_out ({COLUMNS}, PRIMARY KEY (id)) WITHOUT ROWID",
        f"CREATE TABLE messages_out ({COLUMNS}, rowid)",
        f"CREATE TABLE messages_out ({COLUMNS}, OID)",
        f"CREATE TABLE messages_out ({COLUMNS}, {', '.join(f'c{number}' for number in range(200))})",
        "CREATE TABLE messages_out (id, seq)",
        "CREATE TABLE something_else (id)",
    ],
    ids=[
        "endless view",
        "view",
        "virtual table",
        "computed column",
        "stored computed column",
        "no rowid",
        "column rowid",
        "column oid",
        "many columns",
        "few columns",
        "no table",
    ],
)
def test_anything_but_the_plain_table_is_refused(folder: SessionFolder, runner: Runner, statement: str) -> None:
    """Nothing that the agent wrote is evaluated."""
    runner.replace_file(statement, ACKS)
    assert_refused(folder, "messages_out|cannot be read")


def test_a_view_that_calls_itself_a_table_is_refused(folder: SessionFolder, runner: Runner) -> None:
    """The schema's own columns can be forged; SQLite believes its text."""
    runner.replace_file(
        f"CREATE TABLE plain ({COLUMNS})",
        ACKS,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET type = 'table', name = 'messages_out', tbl_name = 'messages_out',"
        " sql = 'CREATE VIEW messages_out AS SELECT 1 AS rowid, 2 AS id' WHERE name = 'plain'",
    )
    assert_refused(folder, "cannot be read|no table")


def test_an_endless_view_of_acks_is_refused(folder: SessionFolder, runner: Runner) -> None:
    """It would hang the sweep."""
    runner.run("DROP TABLE processing_ack", ENDLESS_ACKS)
    assert_refused(folder, "no table processing_ack")


def test_an_endless_view_of_the_state_says_nothing(folder: SessionFolder, runner: Runner) -> None:
    """As a file without that table, which older runners have."""
    runner.run("DROP TABLE container_state", ENDLESS_STATE)
    with open_outbound(folder, LIMITS) as opened:
        assert opened.container_state() is None


def test_triggers_do_nothing(folder: SessionFolder, runner: Runner) -> None:
    """They fire when something is written, and nothing is."""
    runner.run("CREATE TRIGGER t AFTER INSERT ON messages_out BEGIN DELETE FROM messages_out; END")
    runner.run("DROP TRIGGER t", "CREATE TRIGGER t AFTER UPDATE ON messages_out BEGIN SELECT randomblob(1e9); END")
    runner.say("o1")
    assert [row.id for row in read_everything(folder) if isinstance(row, OutboundRow)] == ["o1"]


def test_a_slow_search_ends_at_the_deadline(folder: SessionFolder, runner: Runner) -> None:
    """Without its index a table of acks must be walked; a table that is too large for the time is refused."""
    runner.replace_file(
        "CREATE TABLE messages_out (id)",
        "CREATE TABLE processing_ack (message_id, status, status_changed)",
        "INSERT INTO processing_ack WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000)"
        " SELECT x, 'completed', x FROM n",
    )
    started = time.monotonic()
    with (
        pytest.raises(HostileFileError, match=r"longer than 0\.05 s"),
        open_outbound(folder, ReadLimits(deadline_s=0.05)) as opened,
    ):
        opened.acks([f"m{number}" for number in range(1000)])
    assert time.monotonic() - started < 5


def test_giant_rows_cost_no_memory(folder: SessionFolder, runner: Runner) -> None:
    """A value above the limit is never loaded; the rows around it are read."""
    runner.say("before")
    runner.say("giant", seq=None, content="x" * 20_000_000)
    runner.say("after", seq=99)
    assert [getattr(row, "reason", "") for row in read_everything(folder)] == [
        "",
        "SQLite says: string or blob too big.",
        "",
    ]


def damage(path: Path, seed: int) -> None:
    generator = random.Random(seed)
    with path.open("r+b") as file:
        size = path.stat().st_size
        for _ in range(generator.randint(1, 40)):
            file.seek(generator.randrange(100, size))
            file.write(generator.randbytes(generator.randint(1, 8)))


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_read_or_refused(folder: SessionFolder, runner: Runner, seed: int) -> None:
    """Whatever bytes are changed, reading ends in time, in order, and with our own errors only."""
    runner.say(*(f"o{number}" for number in range(60)), content="y" * 300)
    damage(folder.outbound_db, seed)
    started = time.monotonic()
    try:
        with open_outbound(folder, LIMITS) as opened:
            mark = 0
            while batch := opened.messages_after(mark, 10):
                assert [row.rowid for row in batch] == sorted({row.rowid for row in batch}) and batch[0].rowid > mark
                mark = batch[-1].rowid
            opened.claims()
    except HostileFileError:
        pass
    assert time.monotonic() - started < 5


def test_an_agent_that_keeps_the_file_locked_is_reported_busy(folder: SessionFolder) -> None:
    """The host waits for its deadline and goes on with other sessions."""
    holder = sqlite3.connect(folder.outbound_db)
    holder.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(OutboundBusyError):
        read_everything(folder)
    assert time.monotonic() - started < 5
    holder.close()
