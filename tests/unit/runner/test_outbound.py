"""Writing outbound.db."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runner.inbound import Inbound
from agent_runner.outbound import Outbound
from agent_runner.replies import chat_row
from agent_runner.rows import Route
from tests.unit.runner.by_hand import SessionByHand

HERE = Route("tg", "tg:100")


def files(session: SessionByHand) -> tuple[Inbound, Outbound]:
    inbound = Inbound(str(session.inbound), str(session.outbound))
    return inbound, Outbound(str(session.outbound), inbound)


@pytest.fixture
def outbound(session: SessionByHand) -> Iterator[Outbound]:
    opened = files(session)[1]
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("inbound_seqs", "outbound_seqs", "expected"),
    [
        ([], [], [1, 3]),
        ([2], [], [3, 5]),
        ([2, 4], [3], [5, 7]),
        ([2], [9], [11, 13]),
        ([40], [9], [41, 43]),
        ([7], [], [9, 11]),
        ([None], [], [1, 3]),
    ],
)
def test_a_seq_is_odd_and_larger_than_both_files(
    session: SessionByHand, inbound_seqs: list[int | None], outbound_seqs: list[int], expected: list[int]
) -> None:
    """Host rows are even; the two sides never take the same number."""
    for seq in inbound_seqs:
        session.post(id=f"i{seq}", seq=seq)
    rows = [{"id": f"o{seq}", "seq": seq, "timestamp": "", "kind": "chat", "content": "{}"} for seq in outbound_seqs]
    session.insert_outbound("messages_out", rows)
    outbound = files(session)[1]
    with outbound.transaction():
        assert outbound.insert([chat_row(HERE, "a"), chat_row(HERE, "b")]) == expected
    outbound.close()


def test_a_row_has_every_column_of_the_contract(session: SessionByHand, outbound: Outbound) -> None:
    """Compact JSON, a time with milliseconds, nothing where the original has nothing."""
    with outbound.transaction():
        outbound.insert([chat_row(Route("dc", "dc:g1", "th1"), 'say "hé"', "m1")])
    (row,) = session.sent()
    assert row["id"].startswith("msg-")
    assert row["timestamp"].endswith("Z")
    assert {name: row[name] for name in row if name not in ("id", "timestamp")} == {
        "seq": 1,
        "in_reply_to": "m1",
        "deliver_after": None,
        "recurrence": None,
        "kind": "chat",
        "channel_type": "dc",
        "platform_id": "dc:g1",
        "thread_id": "th1",
        "content": '{"text":"say \\"hé\\""}',
    }


def test_a_transaction_is_all_or_nothing(session: SessionByHand, outbound: Outbound) -> None:
    """A failure in it leaves neither rows nor acks."""
    with pytest.raises(RuntimeError), outbound.transaction():
        outbound.insert([chat_row(HERE, "a")])
        outbound.acknowledge(["m1"], "completed")
        raise RuntimeError
    assert session.sent() == []
    assert session.acks() == {}


def test_a_seq_cannot_be_taken_outside_a_transaction(outbound: Outbound) -> None:
    """Allocation and insert belong together."""
    with pytest.raises(AssertionError):
        outbound.insert([chat_row(HERE, "a")])


def test_acks_are_replaced_and_claims_released(session: SessionByHand, outbound: Outbound) -> None:
    """Only claims can be given back."""
    outbound.acknowledge(["a", "b"], "processing")
    outbound.acknowledge(["a"], "completed")
    outbound.release(["a", "b"])
    assert session.acks() == {"a": "completed"}


def test_a_claim_carries_sqlites_time(session: SessionByHand, outbound: Outbound) -> None:
    """UTC to the second, which hosts compare with their clock."""
    outbound.acknowledge(["a"], "processing")
    (row,) = session.read("SELECT status_changed = datetime(status_changed) AS same FROM processing_ack")
    assert row["same"]


@pytest.mark.parametrize("missing", ["session_state", "container_state", "processing_ack", "messages_out"])
def test_missing_tables_are_made(session: SessionByHand, missing: str) -> None:
    """A host of an earlier version does not make the last ones."""
    db = sqlite3.connect(session.outbound)
    db.execute(f"DROP TABLE {missing}")
    db.close()
    inbound = Inbound(str(session.inbound), str(session.outbound))
    Outbound(str(session.outbound), inbound, create=True).close()
    assert session.read(f"SELECT count(*) AS n FROM {missing}") == [{"n": 0}]  # noqa: S608


def test_a_missing_column_is_added(session: SessionByHand) -> None:
    """Early files have no time in `session_state`."""
    db = sqlite3.connect(session.outbound)
    db.executescript("DROP TABLE session_state; CREATE TABLE session_state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    db.close()
    inbound = Inbound(str(session.inbound), str(session.outbound))
    outbound = Outbound(str(session.outbound), inbound, create=True)
    outbound.set_state("k", "v")
    outbound.close()
    assert session.state() == {"k": "v"}


def test_the_connection_is_safe_before_it_is_used(outbound: Outbound) -> None:
    """Rollback journal, commits that outlive a power cut, foreign keys, and patience with other writers."""
    values = [
        outbound._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
    ]
    assert values == ["delete", 3, 1, 5000]


def test_a_lock_at_the_first_open_is_waited_for(session: SessionByHand) -> None:
    """The original keeps a connection without busy timeout when its first statement meets a lock."""
    import threading

    locker = sqlite3.connect(session.outbound, isolation_level=None, check_same_thread=False)
    locker.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, lambda: locker.execute("COMMIT"))
    timer.start()
    outbound = files(session)[1]
    with outbound.transaction():
        outbound.insert([chat_row(HERE, "a")])
    outbound.close()
    timer.join()
    locker.close()
    assert session.texts() == ["a"]


def test_a_failed_open_leaves_nothing_behind(tmp_path: Path) -> None:
    """What is no database is refused, and the file is closed."""
    (tmp_path / "outbound.db").write_text("this is not a database at all, only a text of some length")
    with pytest.raises(sqlite3.DatabaseError):
        Outbound(str(tmp_path / "outbound.db"), Inbound("", ""), create=True)
