"""Session files made with the documented SQL alone, as the original's host would make them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data"

INBOUND = """
CREATE TABLE messages_in (
  id TEXT PRIMARY KEY, seq INTEGER UNIQUE, kind TEXT NOT NULL, timestamp TEXT NOT NULL,
  status TEXT DEFAULT 'pending', process_after TEXT, recurrence TEXT, series_id TEXT, tries INTEGER DEFAULT 0,
  trigger INTEGER NOT NULL DEFAULT 1, platform_id TEXT, channel_type TEXT, thread_id TEXT, content TEXT NOT NULL,
  source_session_id TEXT, on_wake INTEGER NOT NULL DEFAULT 0);
CREATE TABLE delivered (
  message_out_id TEXT PRIMARY KEY, platform_message_id TEXT, status TEXT NOT NULL DEFAULT 'delivered',
  delivered_at TEXT NOT NULL DEFAULT (datetime('now')));
CREATE TABLE destinations (
  name TEXT PRIMARY KEY, display_name TEXT, type TEXT NOT NULL, channel_type TEXT, platform_id TEXT,
  agent_group_id TEXT);
CREATE TABLE session_routing (
  id INTEGER PRIMARY KEY CHECK (id = 1), channel_type TEXT, platform_id TEXT, thread_id TEXT);
"""

OUTBOUND = """
CREATE TABLE messages_out (
  id TEXT PRIMARY KEY, seq INTEGER UNIQUE, in_reply_to TEXT, timestamp TEXT NOT NULL, deliver_after TEXT,
  recurrence TEXT, kind TEXT NOT NULL, platform_id TEXT, channel_type TEXT, thread_id TEXT, content TEXT NOT NULL);
CREATE TABLE processing_ack (
  message_id TEXT PRIMARY KEY, status TEXT NOT NULL, status_changed TEXT NOT NULL);
CREATE TABLE session_state (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TEXT NOT NULL);
CREATE TABLE container_state (
  id INTEGER PRIMARY KEY CHECK (id = 1), current_tool TEXT, tool_declared_timeout_ms INTEGER, tool_started_at TEXT,
  updated_at TEXT NOT NULL);
"""

FAMILY = {"name": "family", "display_name": "Family", "type": "channel", "channel_type": "tg", "platform_id": "tg:100"}
WORK = {"name": "work", "type": "channel", "channel_type": "dc", "platform_id": "dc:g1"}
WORKER = {"name": "worker-1", "type": "agent", "agent_group_id": "ag-b"}


def recorded(name: str) -> dict[str, Any]:
    """A file of recorded behaviour: its header and its cases."""
    loaded: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return loaded


def chat(text: str, sender: str = "Ann", **more: Any) -> str:
    """The content of a chat row."""
    return json.dumps({"text": text, "sender": sender, **more})


class SessionByHand:
    """One session's folder. `split` is our layout (host/ beside workspace/), otherwise everything is in one folder."""

    def __init__(self, folder: Path, *, split: bool = False, inbound_sql: str = INBOUND) -> None:
        self.workspace = folder / "workspace"
        self.agent_dir = self.workspace / "agent"
        self.agent_dir.mkdir(parents=True)
        (self.workspace / "outbox").mkdir()
        self.inbound = self.workspace / "inbound.db"
        if split:
            (folder / "host" / "inbox").mkdir(parents=True)
            self.inbound.symlink_to(Path("../host/inbound.db"))
            (self.workspace / "inbox").symlink_to(Path("../host/inbox"))
        self.outbound = self.workspace / "outbound.db"
        for path, schema in ((self.inbound, inbound_sql), (self.outbound, OUTBOUND)):
            self._write(path, lambda db, schema=schema: db.executescript(schema))  # type: ignore[misc]
        self._next_seq = 0

    def environment(self) -> dict[str, str]:
        """What a runner of this session is started with."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[3] / "container"),
            "NANOTASKS_WORKSPACE": str(self.workspace),
            "TZ": "UTC",
        }

    def configure(self, **config: Any) -> None:
        (self.agent_dir / "container.json").write_text(json.dumps(config))

    def post(self, content: str | None = None, **columns: Any) -> str:
        """Insert one inbound row as the host does (even seq, open-write-close); returns its id."""
        self._next_seq += 2
        row: dict[str, Any] = {
            "id": f"m{self._next_seq}",
            "seq": self._next_seq,
            "kind": "chat",
            "timestamp": "2026-03-01T12:00:00.000Z",
            "channel_type": "tg",
            "platform_id": "tg:100",
            "content": chat("hello") if content is None else content,
            **columns,
        }
        self.insert_inbound("messages_in", [row])
        return str(row["id"])

    def insert_inbound(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        self._write(self.inbound, lambda db: _insert_all(db, table, rows))
        for row in rows if table == "messages_in" else ():
            self._next_seq = max(self._next_seq, (row.get("seq") or 0) // 2 * 2)

    def insert_outbound(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write(self.outbound, lambda db: _insert_all(db, table, rows))

    def delete_claims(self) -> None:
        """As a host does that believes this session's runner dead (NanoClaw 2's sweep)."""
        self._write(self.outbound, lambda db: db.execute("DELETE FROM processing_ack WHERE status = 'processing'"))

    def delete_acks(self) -> None:
        """As if nothing had ever been answered."""
        self._write(self.outbound, lambda db: db.execute("DELETE FROM processing_ack"))

    def destinations(self, *rows: Mapping[str, Any]) -> None:
        """Replace all destinations, in one transaction."""

        def change(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM destinations")
            _insert_all(db, "destinations", rows)

        self._write(self.inbound, change)

    def routing(self, channel_type: str | None, platform_id: str | None, thread_id: str | None = None) -> None:
        row = {"id": 1, "channel_type": channel_type, "platform_id": platform_id, "thread_id": thread_id}
        self.insert_inbound("session_routing", [row])

    def sent(self) -> list[dict[str, Any]]:
        """The outbound rows in seq order."""
        return self.read("SELECT * FROM messages_out ORDER BY seq")

    def texts(self) -> list[str]:
        return [json.loads(row["content"])["text"] for row in self.sent()]

    def acks(self) -> dict[str, str]:
        """Status by inbound id."""
        return {row["message_id"]: row["status"] for row in self.read("SELECT * FROM processing_ack")}

    def state(self) -> dict[str, str]:
        """`session_state` without what only concerns the running turn."""
        return {row["key"]: row["value"] for row in self.read("SELECT * FROM session_state")}

    def read(self, query: str) -> list[dict[str, Any]]:
        """Rows of outbound.db."""
        db = sqlite3.connect(f"file:{self.outbound}?mode=ro", uri=True, timeout=10)
        try:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(query)]
        finally:
            db.close()

    def wait(self, fact: Callable[[], Any], what: str, *, seconds: float = 10.0) -> Any:
        """The first truthy value of `fact`. A journal left by a killed runner is rolled back by the next one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if value := fact():
                    return value
            except sqlite3.OperationalError:
                pass
            time.sleep(0.005)
        raise AssertionError(f"never happened: {what}; acks {self.acks()}, sent {self.texts()}")

    def wait_done(self, *ids: str, seconds: float = 10.0) -> None:
        """Until all these rows are acknowledged."""
        self.wait(
            lambda: all(self.acks().get(row_id) in ("completed", "failed") for row_id in ids),
            f"{ids} done",
            seconds=seconds,
        )

    @staticmethod
    def _write(path: Path, change: Callable[[sqlite3.Connection], Any]) -> None:
        db = sqlite3.connect(path, timeout=10)
        try:
            db.execute("PRAGMA journal_mode = DELETE")
            with db:
                change(db)
        finally:
            db.close()


def _insert_all(db: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
        db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", dict(row))  # noqa: S608
