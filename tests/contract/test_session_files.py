"""The session files as a contract between hosts and runners of NanoClaw 2 and of nanotasks.

One side here is always plain SQL, written from the contract's documentation and not from our schema: files that the
original's host and runner would write are read and written by us, and files of ours are read and written by the
statements that the original uses.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nanotasks.domain.stuck import Claim
from nanotasks.session import SessionFolder, open_inbound, open_outbound
from nanotasks.session.rows import (
    ContainerState,
    Delivered,
    DeliveryStatus,
    Destination,
    DestinationType,
    NewRow,
    OutboundRow,
)

NOW = 1_772_368_496_789

INBOUND = """
CREATE TABLE IF NOT EXISTS messages_in (
    id TEXT PRIMARY KEY, seq INTEGER UNIQUE, kind TEXT NOT NULL, timestamp TEXT NOT NULL,
    status TEXT DEFAULT 'pending', process_after TEXT, recurrence TEXT, series_id TEXT, tries INTEGER DEFAULT 0,
    trigger INTEGER NOT NULL DEFAULT 1, platform_id TEXT, channel_type TEXT, thread_id TEXT, content TEXT NOT NULL,
    source_session_id TEXT, on_wake INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS idx_messages_in_series ON messages_in(series_id);
CREATE TABLE IF NOT EXISTS delivered (
    message_out_id TEXT PRIMARY KEY, platform_message_id TEXT, status TEXT NOT NULL DEFAULT 'delivered',
    delivered_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS destinations (
    name TEXT PRIMARY KEY, display_name TEXT, type TEXT NOT NULL, channel_type TEXT, platform_id TEXT,
    agent_group_id TEXT
);
CREATE TABLE IF NOT EXISTS session_routing (
    id INTEGER PRIMARY KEY CHECK (id = 1), channel_type TEXT, platform_id TEXT, thread_id TEXT
);
"""
OUTBOUND = """
CREATE TABLE IF NOT EXISTS messages_out (
    id TEXT PRIMARY KEY, seq INTEGER UNIQUE, in_reply_to TEXT, timestamp TEXT NOT NULL, deliver_after TEXT,
    recurrence TEXT, kind TEXT NOT NULL, platform_id TEXT, channel_type TEXT, thread_id TEXT, content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS processing_ack (
    message_id TEXT PRIMARY KEY, status TEXT NOT NULL, status_changed TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS session_state (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS container_state (
    id INTEGER PRIMARY KEY CHECK (id = 1), current_tool TEXT, tool_declared_timeout_ms INTEGER, tool_started_at TEXT,
    updated_at TEXT NOT NULL
);
"""
# The first inbound.db there was; later hosts added the rest one by one.
OLDEST_INBOUND = """
CREATE TABLE messages_in (
    id TEXT PRIMARY KEY, seq INTEGER UNIQUE, kind TEXT NOT NULL, timestamp TEXT NOT NULL,
    status TEXT DEFAULT 'pending', process_after TEXT, recurrence TEXT, tries INTEGER DEFAULT 0,
    platform_id TEXT, channel_type TEXT, thread_id TEXT, content TEXT NOT NULL
);
CREATE TABLE delivered (message_out_id TEXT PRIMARY KEY, delivered_at TEXT NOT NULL);
INSERT INTO messages_in (id, seq, kind, timestamp, content, recurrence)
VALUES ('task-1', 2, 'task', '2026-01-01 00:00:00', '{"prompt":"p"}', '0 9 * * *');
INSERT INTO delivered VALUES ('msg-1', '2026-01-01 00:00:01');
"""
LATER = {
    "series": "ALTER TABLE messages_in ADD COLUMN series_id TEXT; UPDATE messages_in SET series_id = 'older'",
    "trigger": "ALTER TABLE messages_in ADD COLUMN trigger INTEGER NOT NULL DEFAULT 1;"
    " UPDATE messages_in SET trigger = 0",
    "source": "ALTER TABLE messages_in ADD COLUMN source_session_id TEXT",
    "on_wake": "ALTER TABLE messages_in ADD COLUMN on_wake INTEGER NOT NULL DEFAULT 0",
    "delivered": "ALTER TABLE delivered ADD COLUMN platform_message_id TEXT",
    "status": "ALTER TABLE delivered ADD COLUMN status TEXT NOT NULL DEFAULT 'delivered'",
    "destinations": "CREATE TABLE destinations (name TEXT PRIMARY KEY, display_name TEXT, type TEXT NOT NULL,"
    " channel_type TEXT, platform_id TEXT, agent_group_id TEXT)",
    "routing": "CREATE TABLE session_routing (id INTEGER PRIMARY KEY CHECK (id = 1), channel_type TEXT,"
    " platform_id TEXT, thread_id TEXT)",
}
# The runner's query: due, meant for this poll, the newest ten, minus what it has acked, oldest first.
PENDING = """
SELECT id, seq, kind, content FROM messages_in
 WHERE status = 'pending' AND (process_after IS NULL OR datetime(process_after) <= datetime('now'))
   AND (on_wake = 0 OR :first_poll) ORDER BY seq DESC LIMIT 10
"""


@contextmanager
def plain(path: Path, mode: str = "rw") -> Iterator[sqlite3.Connection]:
    """A connection as the other side opens it: journal DELETE, committed at the end."""
    connection = sqlite3.connect(f"file:{path}?mode={mode}", uri=True)
    try:
        if mode != "ro":
            connection.execute("PRAGMA journal_mode = DELETE")
        yield connection
        connection.commit()
    finally:
        connection.close()


@pytest.fixture
def theirs(tmp_path: Path) -> SessionFolder:
    """A session whose files the original's host made."""
    folder = SessionFolder.of(tmp_path, "ag-1", "sess-1")
    for path in (folder.inbox, folder.outbox):
        path.mkdir(parents=True)
    for path, schema in ((folder.inbound_db, INBOUND), (folder.outbound_db, OUTBOUND)):
        with plain(path, "rwc") as db:
            db.executescript(schema)
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> SessionFolder:
    """A session whose files we made."""
    folder = SessionFolder.of(tmp_path, "ag-1", "sess-1")
    folder.create()
    return folder


def columns(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Each table's columns: name, type, NOT NULL, default, place in the primary key."""
    with plain(path, "ro") as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: [row[1:] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}


# The same tables


def test_our_files_have_the_documented_tables(ours: SessionFolder, tmp_path: Path) -> None:
    """Name for name, type for type, default for default."""
    for path, schema in ((ours.inbound_db, INBOUND), (ours.outbound_db, OUTBOUND)):
        documented = tmp_path / path.name
        with plain(documented, "rwc") as db:
            db.executescript(schema)
        assert columns(path) == columns(documented)


def test_the_documented_constraints_hold_in_our_files(ours: SessionFolder) -> None:
    """seq is unique, session_routing and container_state are one row."""
    for path, statement in [
        (
            ours.inbound_db,
            "INSERT INTO messages_in (id, seq, kind, timestamp, content) VALUES (random(), 2, 'c', 't', '')",
        ),
        (
            ours.outbound_db,
            "INSERT INTO messages_out (id, seq, kind, timestamp, content) VALUES (random(), 1, 'c', 't', '')",
        ),
        (
            ours.inbound_db,
            "INSERT INTO session_routing (id) VALUES (coalesce((SELECT id + 1 FROM session_routing), 1))",
        ),
        (
            ours.outbound_db,
            "INSERT INTO container_state (id, updated_at)"
            " VALUES (coalesce((SELECT id + 1 FROM container_state), 1), 't')",
        ),
    ]:
        with plain(path) as db:
            db.execute(statement)
            with pytest.raises(sqlite3.IntegrityError):
                db.execute(statement)


def test_the_originals_scripts_may_run_on_our_files(ours: SessionFolder) -> None:
    """Its host runs them at each opening, its runner some of them."""
    before = columns(ours.inbound_db), columns(ours.outbound_db)
    for path, schema in ((ours.inbound_db, INBOUND), (ours.outbound_db, OUTBOUND)):
        with plain(path) as db:
            db.executescript(schema)
    assert (columns(ours.inbound_db), columns(ours.outbound_db)) == before
    with open_inbound(ours) as inbound:
        assert inbound.insert([NewRow("m", "chat", "{}", NOW)]).seqs == {"m": 2}


# Their runner, our host


def test_their_runner_reads_what_we_append(ours: SessionFolder) -> None:
    """Through the link in the workspace, by its own query: due rows, on_wake rows on the first poll only."""
    with open_inbound(ours) as inbound:
        inbound.insert(
            [
                NewRow("a", "chat", '{"text":"a"}', NOW),
                NewRow("later", "task", "{}", NOW, process_after_ms=4_000_000_000_000),
                NewRow("past", "task", "{}", NOW, process_after_ms=NOW),
                NewRow("note", "chat", "{}", NOW, on_wake=True),
                NewRow("context", "chat", "{}", NOW, trigger=0),
            ]
        )
    with plain(ours.workspace / "inbound.db", "ro") as db:
        assert db.execute(PENDING, {"first_poll": 0}).fetchall()[::-1] == [
            ("a", 2, "chat", '{"text":"a"}'),
            ("past", 6, "task", "{}"),
            ("context", 10, "chat", "{}"),
        ]
        assert ("note", 8, "chat", "{}") in db.execute(PENDING, {"first_poll": 1}).fetchall()


def test_their_runner_reads_our_projections(ours: SessionFolder) -> None:
    """Destinations, the session's routing and the outcomes of its messages."""
    with open_inbound(ours) as inbound:
        inbound.replace_destinations(
            [
                Destination("family", DestinationType.CHANNEL, "The Family", "telegram", "telegram:1"),
                Destination("helper", DestinationType.AGENT, "Helper", agent_group_id="ag-2"),
            ]
        )
        inbound.set_session_routing("telegram", "telegram:1", "7")
        inbound.record_deliveries([Delivered("msg-1", NOW, "42"), Delivered("msg-2", NOW, None, DeliveryStatus.FAILED)])
    with plain(ours.workspace / "inbound.db", "ro") as db:
        assert db.execute("SELECT * FROM destinations ORDER BY name").fetchall() == [
            ("family", "The Family", "channel", "telegram", "telegram:1", None),
            ("helper", "Helper", "agent", None, None, "ag-2"),
        ]
        assert db.execute("SELECT * FROM session_routing").fetchall() == [(1, "telegram", "telegram:1", "7")]
        assert db.execute("SELECT message_out_id, platform_message_id, status FROM delivered").fetchall() == [
            ("msg-1", "42", "delivered"),
            ("msg-2", None, "failed"),
        ]


def test_every_time_we_write_is_iso_with_milliseconds(ours: SessionFolder) -> None:
    """And SQLite reads it."""
    with open_inbound(ours) as inbound:
        inbound.insert([NewRow("m", "chat", "{}", NOW, process_after_ms=NOW + 5)])
        inbound.reset_claimed(["m"], NOW + 10)
        inbound.record_deliveries([Delivered("o", NOW)])
    with plain(ours.inbound_db, "ro") as db:
        (row,) = db.execute("SELECT timestamp, process_after, delivered_at FROM messages_in, delivered")
        for stamp in row:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
            assert db.execute("SELECT datetime(?)", (stamp,)).fetchone() != (None,)


def test_we_read_what_their_runner_says(ours: SessionFolder) -> None:
    """Messages with odd seqs, acks in SQLite's time, the tool that runs; its missing tables it makes itself."""
    with plain(ours.outbound_db) as db:
        db.execute("DROP TABLE container_state")
        db.executescript(OUTBOUND)
        db.execute(
            "INSERT INTO messages_out (id, seq, in_reply_to, timestamp, kind, platform_id, channel_type, content)"
            " VALUES ('msg-1', 1, 'm1', '2026-03-01T12:34:56.789Z', 'chat', 'telegram:1', 'telegram', '{}')"
        )
        for message, status in [("m1", "processing"), ("m2", "processing"), ("m1", "completed")]:
            db.execute(
                "INSERT INTO processing_ack VALUES (?, ?, '2026-03-01 12:34:56') ON CONFLICT(message_id)"
                " DO UPDATE SET status = excluded.status, status_changed = excluded.status_changed",
                (message, status),
            )
        db.execute("INSERT OR REPLACE INTO container_state VALUES (1, 'Bash', 120000, '2026-03-01T12:34:56.789Z', 't')")
    with open_outbound(ours) as outbound:
        assert outbound.messages_after(0, 10) == [
            OutboundRow(
                1,
                "msg-1",
                1,
                "m1",
                "2026-03-01T12:34:56.789Z",
                None,
                "chat",
                "telegram:1",
                "telegram",
                None,
                "{}",
            )
        ]
        assert outbound.acks(["m1", "m2", "m3"]) == {"m1": "completed", "m2": "processing"}
        assert outbound.claims() == [Claim("m2", "2026-03-01 12:34:56")]
        assert outbound.container_state() == ContainerState("Bash", 120000, "2026-03-01T12:34:56.789Z", "t")


def test_an_ack_of_their_runner_completes_our_row(ours: SessionFolder) -> None:
    """`completed` and `failed` alike; a claim does not."""
    with open_inbound(ours) as inbound:
        inbound.insert([NewRow(one, "chat", "{}", NOW) for one in ("done", "failed", "claimed", "new")])
    with plain(ours.outbound_db) as db:
        for message, status in [("done", "completed"), ("failed", "failed"), ("claimed", "processing")]:
            db.execute("INSERT INTO processing_ack VALUES (?, ?, datetime('now'))", (message, status))
    with open_inbound(ours) as inbound, open_outbound(ours) as outbound:
        acks = outbound.acks(inbound.open_ids())
        inbound.complete([one for one, status in acks.items() if status != "processing"])
        assert inbound.open_ids() == ["claimed", "new"]
        assert inbound.next_due_ms(acks) == 0


# Their files, our host


def test_we_write_into_files_of_their_host(theirs: SessionFolder) -> None:
    """Its rows stay, its even numbers go on, and its runner's query finds ours."""
    with plain(theirs.inbound_db) as db:
        db.execute(
            "INSERT INTO messages_in (id, seq, kind, timestamp, content, series_id)"
            " VALUES ('old:ag-1', 2, 'chat', '2026-03-01T12:00:00.000Z', '{}', 'old:ag-1')"
        )
    with plain(theirs.outbound_db) as db:
        db.execute(
            "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES ('msg-1', 5, 't', 'chat', '{}')"
        )
    theirs.create()
    with open_inbound(theirs) as inbound:
        assert inbound.count_due() == 1
        assert inbound.insert([NewRow("new:ag-1", "chat", "{}", NOW)]).seqs == {"new:ag-1": 6}
    with plain(theirs.workspace / "inbound.db", "ro") as db:
        assert [row[0] for row in db.execute(PENDING, {"first_poll": 0})] == ["new:ag-1", "old:ag-1"]
    with open_outbound(theirs) as outbound:
        assert [row.id for row in outbound.messages_after(0, 10)] == ["msg-1"]


@pytest.mark.parametrize("newest", range(len(LATER) + 1))
def test_a_file_of_any_older_host_is_brought_up_to_date(theirs: SessionFolder, newest: int) -> None:
    """What is missing is added with its documented default, what is there stays, and a second time changes nothing."""
    has = list(LATER)[:newest]
    theirs.inbound_db.unlink()
    with plain(theirs.inbound_db, "rwc") as db:
        db.executescript(OLDEST_INBOUND)
        for step in has:
            db.executescript(LATER[step])
    with open_inbound(theirs) as inbound:
        row = inbound.row("task-1")
        assert row is not None
        assert row.series_id == ("older" if "series" in has else "task-1")
        assert row.trigger == (0 if "trigger" in has else 1)
        assert (row.seq, row.kind, row.recurrence, row.tries) == (2, "task", "0 9 * * *", 0)
        assert (row.source_session_id, row.on_wake) == (None, 0)
        assert inbound.delivered(["msg-1"]) == {"msg-1": "delivered"}
        inbound.insert([NewRow("new", "chat", "{}", NOW, on_wake=True)])
        inbound.record_deliveries([Delivered("msg-2", NOW, "7")])
        inbound.replace_destinations([Destination("d", DestinationType.CHANNEL)])
        inbound.set_session_routing("telegram", "1", None)
    documented = {table: {name for name, *_ in fields} for table, fields in columns(theirs.inbound_db).items()}
    with plain(theirs.inbound_db.parent / "documented.db", "rwc") as db:
        db.executescript(INBOUND)
    expected = columns(theirs.inbound_db.parent / "documented.db")
    assert documented == {table: {name for name, *_ in fields} for table, fields in expected.items()}
    before = theirs.inbound_db.read_bytes()
    with open_inbound(theirs):
        pass
    assert theirs.inbound_db.read_bytes() == before
    with plain(theirs.inbound_db, "ro") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_old_outbound_db_is_read_as_it_is(theirs: SessionFolder) -> None:
    """The first runners had no container_state, and no time in session_state. The host adds nothing."""
    with plain(theirs.outbound_db) as db:
        db.executescript(
            "DROP TABLE container_state; DROP TABLE session_state;"
            "CREATE TABLE session_state (key TEXT PRIMARY KEY, value TEXT NOT NULL);"
            "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES ('msg-1', 1, 't', 'chat', '{}')"
        )
    before = theirs.outbound_db.read_bytes()
    with open_outbound(theirs) as outbound:
        assert [row.id for row in outbound.messages_after(0, 10)] == ["msg-1"]
        assert outbound.container_state() is None
    assert theirs.outbound_db.read_bytes() == before


# Their host, our files


def test_their_host_goes_on_with_our_files(ours: SessionFolder) -> None:
    """Its due count, its append, its ack sync and its bookkeeping, statement by statement."""
    with open_inbound(ours) as inbound:
        inbound.insert([NewRow("m1", "chat", "{}", NOW), NewRow("m2", "chat", "{}", NOW, trigger=0)])
    with plain(ours.inbound_db) as db:
        due = "SELECT count(*) FROM messages_in WHERE status = 'pending' AND trigger = 1"
        due += " AND (process_after IS NULL OR datetime(process_after) <= datetime('now'))"
        assert db.execute(due).fetchone() == (1,)
        (highest,) = db.execute("SELECT max(seq) FROM messages_in").fetchone()
        db.execute(
            "INSERT INTO messages_in (id, seq, kind, timestamp, status, series_id, content)"
            " VALUES ('m3', ?, 'chat', '2026-03-01T12:34:56.789Z', 'pending', 'm3', '{}')",
            (highest + 2,),
        )
        db.execute("UPDATE messages_in SET status = 'completed' WHERE id = 'm1' AND status != 'completed'")
        db.execute(
            "UPDATE messages_in SET tries = tries + 1, process_after = datetime('now', '+5 seconds') WHERE id = 'm3'"
        )
        db.execute("INSERT OR IGNORE INTO delivered VALUES ('o1', NULL, 'delivered', datetime('now'))")
    with open_inbound(ours) as inbound:
        assert inbound.open_ids() == ["m2", "m3"]
        assert inbound.count_due() == 0
        assert inbound.delivered(["o1"]) == {"o1": "delivered"}
        assert inbound.insert([NewRow("m4", "chat", "{}", NOW)]).seqs == {"m4": 8}
