"""Reading outbound.db: messages in order, acks, claims, and what a living or dead writer means."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nanotasks.domain.stuck import Claim
from nanotasks.errors import HostileFileError
from nanotasks.session import HotJournalError, OutboundBusyError, ReadLimits, SessionFolder, open_outbound, outbound
from nanotasks.session.rows import BadRow, ContainerState, OutboundRow
from nanotasks.settings import Settings
from tests.unit.session.conftest import STAMP, Runner, names

QUICK = ReadLimits(deadline_s=0.1)


def ids_after(folder: SessionFolder, mark: int, limit: int = 100) -> list[str | None]:
    with open_outbound(folder) as opened:
        return [row.id for row in opened.messages_after(mark, limit)]


def test_a_row_is_read_with_all_its_fields(folder: SessionFolder, runner: Runner) -> None:
    """Times are instants, everything else is as the runner wrote it."""
    runner.say(
        "o1",
        in_reply_to="m1",
        deliver_after="2026-03-01 12:34:56",
        platform_id="p",
        channel_type="terminal",
        thread_id="t",
        content='{"text":"hi"}',
    )
    with open_outbound(folder) as opened:
        assert opened.messages_after(0, 10) == [
            OutboundRow(
                rowid=1,
                id="o1",
                seq=1,
                in_reply_to="m1",
                timestamp=STAMP,
                deliver_after_ms=1_772_368_496_000,
                kind="chat",
                platform_id="p",
                channel_type="terminal",
                thread_id="t",
                content='{"text":"hi"}',
            )
        ]


def test_rows_come_in_the_order_they_were_written(folder: SessionFolder, runner: Runner) -> None:
    """Behind the mark, at most so many, whatever their seqs say."""
    runner.say("c", seq=9)
    runner.say("a", seq=3)
    runner.say("b", seq=5)
    assert ids_after(folder, 0) == ["c", "a", "b"]
    assert ids_after(folder, 0, limit=2) == ["c", "a"]
    assert ids_after(folder, 2) == ["b"]
    assert ids_after(folder, 3) == []
    with open_outbound(folder) as opened:
        assert (opened.max_rowid(), opened.max_seq(100), opened.max_seq(8), opened.max_seq(2)) == (3, 9, 5, 0)


def test_a_new_file_is_empty(folder: SessionFolder) -> None:
    """Nothing was said, claimed or acked."""
    with open_outbound(folder) as opened:
        assert (opened.max_rowid(), opened.max_seq(100), opened.messages_after(0, 10)) == (0, 0, [])
        assert (opened.acks(["m1"]), opened.claims(), opened.container_state()) == ({}, [], None)


def test_a_batch_of_large_rows_ends_early(
    folder: SessionFolder, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, and nothing is left out."""
    monkeypatch.setattr(outbound, "MAX_BATCH_CHARACTERS", 2500)
    runner.say(*"abcde", content="x" * 1000)
    seen: list[str | None] = []
    with open_outbound(folder) as opened:
        mark = 0
        while batch := opened.messages_after(mark, 100):
            assert len(batch) <= 3
            seen += [row.id for row in batch]
            mark = batch[-1].rowid
    assert seen == list("abcde")


def test_acks_and_claims(folder: SessionFolder, runner: Runner) -> None:
    """A claim is an ack in state processing; oldest first, its time as the runner wrote it."""
    runner.ack("processing", ["m2"], "2026-03-01 12:00:02")
    runner.ack("processing", ["m1"], "2026-03-01 12:00:01")
    runner.ack("completed", ["m3"])
    runner.ack("failed", ["m4"])
    runner.ack("nonsense", ["m5"])
    with open_outbound(folder) as opened:
        assert opened.acks(["m1", "m3", "m4", "m5", "m6"]) == {"m1": "processing", "m3": "completed", "m4": "failed"}
        assert opened.claims() == [Claim("m1", "2026-03-01 12:00:01"), Claim("m2", "2026-03-01 12:00:02")]


def test_claims_are_limited(folder: SessionFolder, runner: Runner) -> None:
    """An agent that claims everything does not fill the host's memory."""
    runner.ack("processing", [f"m{number}" for number in range(outbound.MAX_CLAIMS + 5)])
    with open_outbound(folder) as opened:
        assert len(opened.claims()) == outbound.MAX_CLAIMS


def test_the_tool_that_runs(folder: SessionFolder, runner: Runner) -> None:
    """Fields of another type read as None."""
    runner.run("INSERT INTO container_state VALUES (1, 'Bash', 60000, '2026-03-01 12:00:00', '2026-03-01 12:00:01')")
    with open_outbound(folder) as opened:
        assert opened.container_state() == ContainerState("Bash", 60000, "2026-03-01 12:00:00", "2026-03-01 12:00:01")
    runner.run("UPDATE container_state SET current_tool = x'00', tool_declared_timeout_ms = 'long'")
    with open_outbound(folder) as opened:
        assert opened.container_state() == ContainerState(None, None, "2026-03-01 12:00:00", "2026-03-01 12:00:01")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"content": b"\x00\xff"}, "content is not a text"),
        ({"kind": b"chat"}, "kind is not a text"),
        ({"platform_id": b"p"}, "platform_id is not a text"),
        ({"thread_id": b"t"}, "thread_id is not a text"),
        ({"in_reply_to": b"m"}, "in_reply_to is not a text"),
        ({"timestamp": b"now"}, "timestamp is not a text"),
        ({"deliver_after": "soon"}, "deliver_after is no time: 'soon'"),
        ({"deliver_after": b"x"}, "deliver_after is not a text"),
        ({"seq": "first"}, "seq is not an integer"),
        ({"seq": 1.5}, "seq is not an integer"),
        ({"content": "x" * 2_000_000}, "SQLite says: string or blob too big."),
    ],
)
def test_a_bad_row_holds_up_no_other(
    folder: SessionFolder, runner: Runner, columns: dict[str, object], reason: str
) -> None:
    """It is reported in its place, with its id and what is wrong."""
    runner.say("before")
    runner.say("bad", "worse", **{"seq": None, **columns}) if "seq" not in columns else runner.say("bad", **columns)
    runner.say("after", seq=99)
    with open_outbound(folder) as opened:
        rows = opened.messages_after(0, 10)
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [row.id for row in rows][0 :: len(rows) - 1] == ["before", "after"]
    assert len(bad) == len(rows) - 2
    assert bad[0] == BadRow(2, "bad", reason)


def test_a_row_whose_id_cannot_be_read_is_named_by_its_rowid(folder: SessionFolder, runner: Runner) -> None:
    """A blob, nothing at all, an empty text, a text that is not UTF-8, and one that is too long."""
    runner.say(b"blob", seq=None)  # type: ignore[arg-type]
    runner.say("", seq=None)
    runner.run(
        "INSERT INTO messages_out (id, timestamp, kind, content) VALUES (NULL, 't', 'chat', '{}')",
        "INSERT INTO messages_out (id, timestamp, kind, content) VALUES (CAST(x'ff' AS TEXT), 't', 'chat', '{}')",
        "INSERT INTO messages_out (id, timestamp, kind, content) VALUES (hex(zeroblob(1000000)), 't', 'chat', '{}')",
    )
    runner.say("good", seq=1)
    with open_outbound(folder) as opened:
        rows = opened.messages_after(0, 10)
    assert [(row.rowid, row.id) for row in rows] == [(1, None), (2, ""), (3, None), (4, None), (5, None), (6, "good")]
    assert [type(row) for row in rows] == [BadRow] * 5 + [OutboundRow]


def test_integers_in_text_columns_are_texts(folder: SessionFolder, runner: Runner) -> None:
    """The columns' affinity makes them so, as it did for NanoClaw 2's host."""
    runner.say("o1", platform_id=42, thread_id=7.5)
    with open_outbound(folder) as opened:
        (row,) = opened.messages_after(0, 1)
    assert isinstance(row, OutboundRow)
    assert (row.platform_id, row.thread_id) == ("42", "7.5")


WRITER = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("INSERT INTO messages_out (id, timestamp, kind, content) VALUES ('half', 't', 'chat', '{}')")
print("ready", flush=True)
sys.stdin.read()
connection.execute("COMMIT")
"""


@contextmanager
def transaction_elsewhere(folder: SessionFolder, begin: str) -> Iterator[None]:
    """Another process holds a transaction with an uncommitted message, and commits it at the end."""
    command = [sys.executable, "-c", WRITER, str(folder.outbound_db), begin]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.communicate()


def test_a_live_writer_is_read_around(folder: SessionFolder, runner: Runner) -> None:
    """While a runner prepares a commit its journal exists, and the file is what was committed before."""
    runner.say("committed")
    with transaction_elsewhere(folder, "BEGIN IMMEDIATE"):
        assert "outbound.db-journal" in names(folder.workspace)
        assert ids_after(folder, 0) == ["committed"]
    assert ids_after(folder, 0) == ["committed", "half"]


def test_a_writer_at_its_commit_is_waited_for(folder: SessionFolder) -> None:
    """Up to the deadline; then the caller tries again later."""
    with transaction_elsewhere(folder, "BEGIN EXCLUSIVE"):
        started = time.monotonic()
        with pytest.raises(OutboundBusyError), open_outbound(folder, QUICK):
            pass
        assert 0.05 < time.monotonic() - started < 1
    assert ids_after(folder, 0) == ["half"]


def test_no_writer_commits_while_the_file_is_open(folder: SessionFolder) -> None:
    """What is read through one opening is one state of the file."""
    with open_outbound(folder):
        writer = sqlite3.connect(folder.outbound_db, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("DELETE FROM messages_out")
            writer.commit()
        writer.close()


def test_readers_do_not_hinder_each_other(folder: SessionFolder, runner: Runner) -> None:
    """Two may have the file open at once."""
    runner.say("o1")
    with open_outbound(folder) as first, open_outbound(folder) as second:
        assert first.max_rowid() == second.max_rowid() == 1


KILLED_RUNNER = """
import os, signal, sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 2")
connection.execute("DELETE FROM messages_out")
for number in range(200):
    connection.execute(
        "INSERT INTO messages_out (id, timestamp, kind, content) VALUES (?, 't', 'chat', ?)",
        (f"half-{number}", "x" * 5000),
    )
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed_runner(folder: SessionFolder, runner: Runner) -> Runner:
    """A runner that died in the middle of a commit, with pages of it in the file and a hot journal beside it."""
    runner.say(*(f"o{number}" for number in range(50)))
    done = subprocess.run([sys.executable, "-c", KILLED_RUNNER, str(runner.path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "outbound.db-journal" in names(folder.workspace)
    return runner


def test_half_a_commit_is_left_to_the_next_runner(folder: SessionFolder, killed_runner: Runner) -> None:
    """Reading raises, and goes on once a runner has opened the file for writing."""
    with pytest.raises(HotJournalError), open_outbound(folder):
        pass
    killed_runner.run("SELECT * FROM messages_out")
    assert ids_after(folder, 0) == [f"o{number}" for number in range(50)]


def test_half_a_commit_is_rolled_back_on_a_copy_when_no_runner_lives(
    folder: SessionFolder, killed_runner: Runner
) -> None:
    """All that was committed before is read; the agent's files stay as they are, and nothing is left behind."""
    before = {name: (folder.workspace / name).read_bytes() for name in ("outbound.db", "outbound.db-journal")}
    with open_outbound(folder, agent_is_dead=True) as opened:
        assert [row.id for row in opened.messages_after(0, 100)] == [f"o{number}" for number in range(50)]
        assert names(folder.root) == ["host", "workspace"]
    assert {name: (folder.workspace / name).read_bytes() for name in before} == before
    assert names(folder.root) == ["host", "workspace"]


@pytest.mark.parametrize("journal", [b"", b"\0" * 512])
def test_a_journal_that_says_nothing_does_not_matter(folder: SessionFolder, runner: Runner, journal: bytes) -> None:
    """It is empty, or its header was zeroed at the commit."""
    runner.say("o1")
    (folder.workspace / "outbound.db-journal").write_bytes(journal)
    assert ids_after(folder, 0) == ["o1"]


def test_what_a_killed_reader_left_is_removed(folder: SessionFolder, runner: Runner) -> None:
    """The second name of outbound.db, and a half-made copy."""
    runner.say("o1")
    os.link(folder.outbound_db, folder.root / ".outbound-view")
    assert ids_after(folder, 0) == ["o1"]
    assert names(folder.root) == ["host", "workspace"]
    assert folder.outbound_db.stat().st_nlink == 1


def test_the_limits_come_from_the_settings() -> None:
    """`outbound_read_timeout_s` and `outbound_max_row_kb`."""
    settings = Settings(outbound_read_timeout_s=3.0, outbound_max_row_kb=2)
    assert ReadLimits.of(settings) == ReadLimits(deadline_s=3.0, max_value_bytes=2048)


def test_history_slows_no_drain(folder: SessionFolder) -> None:
    """Every read goes through the rowid or an index; none walks what is behind the mark."""
    connection = sqlite3.connect(folder.outbound_db)
    for name, parameters in {
        "messages_after": (1, 1),
        "max_rowid": (),
        "max_seq": (1,),
        "ack": ("m",),
        "claims": (1,),
        "container_state": (),
    }.items():
        for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {outbound.SQL[name]}", parameters):
            # The few claims are sorted by what is left of them when they are cut.
            assert "SEARCH" in step or "INDEX" in step or (name, step) == ("claims", "USE TEMP B-TREE FOR ORDER BY")
    connection.close()


def test_a_file_without_the_newer_tables_is_read(folder: SessionFolder, runner: Runner) -> None:
    """An older runner has no container_state."""
    runner.run("DROP TABLE container_state", "DROP TABLE session_state", "DROP INDEX idx_processing_ack_claims")
    runner.ack("processing", ["m1"])
    with open_outbound(folder) as opened:
        assert opened.container_state() is None
        assert [claim.message_id for claim in opened.claims()] == ["m1"]


def test_a_missing_table_is_an_error(folder: SessionFolder, runner: Runner) -> None:
    """Only where it is asked for."""
    runner.run("DROP TABLE processing_ack")
    with open_outbound(folder) as opened:
        assert opened.messages_after(0, 1) == []
        with pytest.raises(HostileFileError, match="no table processing_ack"):
            opened.claims()
