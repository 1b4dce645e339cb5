"""Writing inbound.db: appending, acks, retries, outcomes and projections."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nanotasks.domain.retry import ResetAction
from nanotasks.session import SessionFileError, SessionFolder, inbound, open_inbound
from nanotasks.session.rows import Delivered, DeliveryStatus, Destination, DestinationType, NewRow
from nanotasks.session.statements import queries
from tests.unit.session.conftest import Runner, names

NOW = 1_772_368_496_789


def message(name: str, **changes: object) -> NewRow:
    return NewRow(**{"id": name, "kind": "chat", "content": f'{{"text":"{name}"}}', "timestamp_ms": NOW, **changes})  # type: ignore[arg-type]


def insert(folder: SessionFolder, *names: str, **changes: object) -> None:
    with open_inbound(folder) as opened:
        opened.insert([message(name, **changes) for name in names])


def statuses(folder: SessionFolder) -> dict[str, str]:
    connection = sqlite3.connect(folder.inbound_db)
    found = dict(connection.execute("SELECT id, status FROM messages_in ORDER BY seq").fetchall())
    connection.close()
    return found


def test_rows_are_stored_as_given(folder: SessionFolder) -> None:
    """Times become ISO-8601 with milliseconds and Z, the series defaults to the id, and the row is pending."""
    row = message(
        "m1",
        platform_id="p",
        channel_type="terminal",
        thread_id="t",
        process_after_ms=NOW + 1,
        recurrence="0 9 * * *",
        trigger=0,
        source_session_id="sess-2",
        on_wake=True,
    )
    with open_inbound(folder) as opened:
        assert opened.insert([row]).seqs == {"m1": 2}
        stored = opened.row("m1")
    assert stored is not None
    assert stored == opened_again(folder, 2)
    assert (stored.timestamp, stored.process_after) == ("2026-03-01T12:34:56.789Z", "2026-03-01T12:34:56.790Z")
    assert (stored.status, stored.tries, stored.series_id) == ("pending", 0, "m1")
    assert (stored.kind, stored.content, stored.recurrence) == ("chat", '{"text":"m1"}', "0 9 * * *")
    assert (stored.platform_id, stored.channel_type, stored.thread_id) == ("p", "terminal", "t")
    assert (stored.trigger, stored.source_session_id, stored.on_wake) == (0, "sess-2", 1)


def opened_again(folder: SessionFolder, seq: int) -> object:
    with open_inbound(folder) as opened:
        return opened.row_by_seq(seq)


def test_a_row_that_is_there_is_left_as_it_is(folder: SessionFolder) -> None:
    """Inserting is idempotent by id, within a batch too, and says what was there."""
    with open_inbound(folder) as opened:
        opened.insert([message("a"), message("b")])
        again = opened.insert([message("c"), message("a", content="{}"), message("c", content="{}"), message("d")])
        assert again.seqs == {"c": 6, "d": 8}
        assert again.present == ("a",)
        assert [opened.row(name).content for name in "ac"] == ['{"text":"a"}', '{"text":"c"}']  # type: ignore[union-attr]


def test_nothing_to_insert_is_no_work(folder: SessionFolder) -> None:
    """An empty batch takes no seq."""
    with open_inbound(folder) as opened:
        assert opened.insert([]).seqs == {}
        assert opened.max_seq() == 0


def test_a_transaction_is_all_or_nothing(folder: SessionFolder) -> None:
    """What a caller did inside disappears together when the caller fails."""
    with pytest.raises(ZeroDivisionError), open_inbound(folder) as opened, opened.transaction():
        opened.insert([message("a")])
        opened.record_deliveries([Delivered("o1", NOW)])
        raise ZeroDivisionError
    with open_inbound(folder) as opened:
        assert (opened.row("a"), opened.delivered(["o1"])) == (None, {})


def test_a_transaction_holds_the_write_lock_from_its_beginning(folder: SessionFolder) -> None:
    """A caller may ask elsewhere what to write, and nobody else writes meanwhile."""
    with open_inbound(folder) as opened, opened.transaction():
        other = sqlite3.connect(folder.inbound_db, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        opened.insert([message("a")])
    assert statuses(folder) == {"a": "pending"}


def test_a_locked_file_is_an_error_of_the_session(folder: SessionFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who keeps the lock is waited for, but not for ever."""
    monkeypatch.setattr(inbound, "BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(folder.inbound_db)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SessionFileError, match="locked"):
        insert(folder, "a")
    other.close()
    insert(folder, "a")


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"not a database " * 100)])
def test_a_missing_or_damaged_file_is_an_error_of_the_session(folder: SessionFolder, damage: object) -> None:
    """It is neither made anew nor overwritten."""
    damage(folder.inbound_db)  # type: ignore[operator]
    before = folder.inbound_db.read_bytes() if folder.inbound_db.exists() else None
    with pytest.raises(SessionFileError, match="sess-1"):
        insert(folder, "a")
    assert (folder.inbound_db.read_bytes() if folder.inbound_db.exists() else None) == before


KILLED_WRITER = """
import os, pathlib, signal, sys
from nanotasks.session import SessionFolder, open_inbound
from nanotasks.session.rows import NewRow

with open_inbound(SessionFolder(pathlib.Path(sys.argv[1]))) as inbound, inbound.transaction():
    inbound._db.execute("PRAGMA cache_size = 2")
    inbound.insert([NewRow(f"killed-{n}", "chat", "x" * 5000, n) for n in range(200)])
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_half_a_commit_is_rolled_back_by_the_next_opening(folder: SessionFolder) -> None:
    """A host that dies while pages are already in the file leaves nothing of its transaction."""
    insert(folder, "before")
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(folder.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "inbound.db-journal" in names(folder.host)
    insert(folder, "after")
    assert statuses(folder) == {"before": "pending", "after": "pending"}


def test_acked_rows_are_completed(folder: SessionFolder) -> None:
    """Pending and paused rows are, a failed one stays failed, and unknown ids do not matter."""
    insert(folder, "pending", "paused", "failed", "done", "other")
    with sqlite3.connect(folder.inbound_db) as connection:
        connection.execute("UPDATE messages_in SET status = id WHERE id IN ('paused', 'failed')")
    connection.close()
    with open_inbound(folder) as opened:
        assert opened.open_ids() == ["pending", "paused", "done", "other"]
        opened.complete(["done"])
        assert sorted(opened.complete(["pending", "paused", "failed", "done", "unknown"])) == ["paused", "pending"]
        assert opened.complete([]) == []
    assert statuses(folder) == {
        "pending": "completed",
        "paused": "completed",
        "failed": "failed",
        "done": "completed",
        "other": "pending",
    }


def test_a_reset_is_written_once(folder: SessionFolder) -> None:
    """A claimed row is put off with one more try; a repetition and rows without a claim change nothing."""
    insert(folder, "claimed", "free")
    with open_inbound(folder) as opened:
        assert opened.reset_claimed(["claimed", "unknown"], NOW)["claimed"].action is ResetAction.RETRY
        assert opened.reset_claimed(["claimed"], NOW)["claimed"].action is ResetAction.LEAVE
        claimed, free = opened.row("claimed"), opened.row("free")
    assert claimed is not None and free is not None
    assert (claimed.status, claimed.tries, claimed.process_after) == ("pending", 1, "2026-03-01T12:35:01.789Z")
    assert (free.tries, free.process_after) == (0, None)


def test_the_limits_of_a_reset_are_the_callers(folder: SessionFolder) -> None:
    """`max_tries` and `backoff_ms` come from the settings."""
    insert(folder, "m")
    with open_inbound(folder) as opened:
        opened.reset_claimed(["m"], NOW, max_tries=1, backoff_ms=100)
        opened.reset_claimed(["m"], NOW + 100, max_tries=1, backoff_ms=100)
        assert opened.row("m").status == "failed"  # type: ignore[union-attr]


def test_outcomes_are_recorded_once(folder: SessionFolder) -> None:
    """The first outcome of a message stays, and the agent sees the platform's id."""
    with open_inbound(folder) as opened:
        opened.record_deliveries(
            [Delivered("o1", NOW, "platform-1"), Delivered("o2", NOW, None, DeliveryStatus.FAILED)]
        )
        opened.record_deliveries([Delivered("o1", NOW, "other", DeliveryStatus.FAILED), Delivered("o3", NOW)])
        assert opened.delivered(["o1", "o2", "o3", "o4"]) == {"o1": "delivered", "o2": "failed", "o3": "delivered"}
    connection = sqlite3.connect(folder.inbound_db)
    assert connection.execute("SELECT * FROM delivered WHERE message_out_id = 'o1'").fetchall() == [
        ("o1", "platform-1", "delivered", "2026-03-01T12:34:56.789Z")
    ]
    connection.close()


def test_a_failure_gives_way_to_a_success(folder: SessionFolder) -> None:
    """An operator may have a message tried again that was given up."""
    with open_inbound(folder) as opened:
        opened.record_deliveries([Delivered("o1", NOW, None, DeliveryStatus.FAILED)])
        opened.record_deliveries([Delivered("o1", NOW + 1, "late")])
        assert opened.delivered(["o1"]) == {"o1": "delivered"}


def test_destinations_are_replaced_as_a_whole(folder: SessionFolder) -> None:
    """What is not named any more is gone; a bad list changes nothing."""
    family = Destination("family", DestinationType.CHANNEL, "The Family", "terminal", "p1")
    helper = Destination("helper", DestinationType.AGENT, "Helper", agent_group_id="ag-2")
    with open_inbound(folder) as opened:
        opened.replace_destinations([helper, family])
        assert opened.destinations() == [family, helper]
        opened.replace_destinations([helper])
        assert opened.destinations() == [helper]
    with pytest.raises(SessionFileError), open_inbound(folder) as opened:
        opened.replace_destinations([family, family])
    with open_inbound(folder) as opened:
        assert opened.destinations() == [helper]


def test_the_session_routing_is_one_row(folder: SessionFolder) -> None:
    """Setting it again replaces it; a session without a chat has none."""
    with open_inbound(folder) as opened:
        opened.set_session_routing("terminal", "p1", "t1")
        opened.set_session_routing(None, None, None)
    connection = sqlite3.connect(folder.inbound_db)
    assert connection.execute("SELECT * FROM session_routing").fetchall() == [(1, None, None, None)]
    connection.close()


def test_the_way_back_to_another_agents_session(folder: SessionFolder) -> None:
    """By the message that is answered, or by the newest message of that peer that names a session."""
    peer = {"channel_type": "agent", "platform_id": "ag-2"}
    insert(folder, "old", source_session_id="sess-old", **peer)
    insert(folder, "new", source_session_id="sess-new", **peer)
    insert(folder, "silent", **peer)
    insert(folder, "chat", channel_type="terminal", platform_id="ag-2", source_session_id="sess-no")
    with open_inbound(folder) as opened:
        assert opened.source_session_id("old") == "sess-old"
        assert opened.source_session_id("silent") is None
        assert opened.source_session_id("unknown") is None
        assert opened.newest_peer_session_id("ag-2", NOW) == "sess-new"
        assert opened.newest_peer_session_id("ag-2", 0) is None
        assert opened.newest_peer_session_id("ag-3", NOW) is None
        assert (opened.row("unknown"), opened.row_by_seq(99)) == (None, None)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("count_due", {"now": "2026-03-01T12:34:56.789Z"}),
        ("next_due", {"settled": "[]"}),
        ("open_rows", {}),
        ("newest_peer", ["ag-2", "2026-03-01T12:34:56.789Z"]),
        ("max_seq", {}),
        ("complete", ["[]"]),
        ("delivered", ["[]"]),
    ],
)
def test_history_slows_nothing(folder: SessionFolder, query: str, parameters: dict[str, str] | list[str]) -> None:
    """Every lookup of open work goes through an index, so that finished rows are never walked."""
    connection = sqlite3.connect(folder.inbound_db)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {queries('inbound_queries')[query]}", parameters).fetchall()
    connection.close()
    tables = [step for *_, step in plan if "messages_in" in step or "delivered" in step]
    assert tables
    for step in tables:
        assert "USING" in step and "INDEX" in step, step


def test_the_runner_may_read_while_the_host_appends(folder: SessionFolder, runner: Runner) -> None:
    """A runner's open read-only connection sees a row as soon as it is committed."""
    reader = sqlite3.connect(f"file:{folder.workspace / 'inbound.db'}?mode=ro", uri=True)
    assert reader.execute("SELECT count(*) FROM messages_in").fetchone() == (0,)
    insert(folder, "a")
    assert reader.execute("SELECT id FROM messages_in").fetchall() == [("a",)]
    reader.close()
