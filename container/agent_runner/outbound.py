"""Writing outbound.db: claims and acks, messages with their seq, the runner's own state.

Several processes write this file (the runner, the tool server), so every change is one IMMEDIATE transaction. A seq
is odd and larger than the maxima of both files; it is allocated in the transaction that inserts the row (promise I4),
which no other writer of this file can overlap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agent_runner import host_lease
from agent_runner.clock import now_iso
from agent_runner.inbound import Inbound
from agent_runner.rows import OutboundRow, TaskEnd
from agent_runner.sql import SQL, connect, schema

# The key under which the runner tells tool processes which message the running turn answers.
REPLYING_TO = "current_in_reply_to"


class Outbound:
    """One connection to outbound.db. Not shared between threads: each opens its own."""

    def __init__(self, path: str, inbound: Inbound, *, create: bool = False) -> None:
        self._inbound = inbound
        self._db = connect(path, "rwc" if create else "rw")
        try:
            # EXTRA: with FULL a power cut could take back the last commit, whose reply is out already.
            for pragma in ("journal_mode = DELETE", "synchronous = EXTRA", "foreign_keys = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            if create:
                self._create_missing_tables()
        except BaseException:
            # A connection that is not fully set up must not be used by anybody.
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed together, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            host_lease.require()
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def insert(self, rows: Iterable[OutboundRow]) -> list[int]:
        """Write rows in order; returns their seqs. Inside a transaction only."""
        rows = list(rows)
        if not rows:
            return []
        assert self._db.in_transaction, "a seq is allocated and used in one transaction"
        with self._inbound.open() as reader:
            highest = max(self.max_seq(), reader.max_seq())
        seqs = []
        for row in rows:
            highest += 1 if highest % 2 == 0 else 2
            self._insert_one(row, highest)
            seqs.append(highest)
        return seqs

    def max_seq(self) -> int:
        return int(self._db.execute(SQL["outbound_max_seq"]).fetchone()[0])

    def acknowledge(self, ids: Iterable[str], status: str) -> None:
        """Set the ack of these inbound rows to `processing`, `completed` or `failed`."""
        self._db.executemany(SQL["set_ack"], [(row_id, status) for row_id in ids])

    def report_claims(self, ids: Iterable[str]) -> None:
        """Note when rows of scheduled tasks were claimed, and forget what an earlier try at them said."""
        now = now_iso()
        self._db.executemany(SQL["report_claim"], [{"id": row_id, "now": now} for row_id in ids])

    def report_ends(self, ends: Iterable[TaskEnd]) -> None:
        """Note how runs of scheduled tasks ended."""
        now = now_iso()
        self._db.executemany(SQL["report_end"], [{**end._asdict(), "now": now} for end in ends])

    def release(self, ids: Iterable[str]) -> None:
        """Give claims back: the rows are pending again."""
        self._db.executemany(SQL["release_claim"], [(row_id,) for row_id in ids])

    def release_all(self) -> int:
        """Give back what an earlier process of this session left claimed; returns how many."""
        return self._db.execute(SQL["release_all_claims"]).rowcount

    def state(self, key: str) -> str | None:
        row = self._db.execute(SQL["get_state"], (key,)).fetchone()
        return row[0] if row else None

    def set_state(self, key: str, value: str | None) -> None:
        """Store a value under `key`; None removes it."""
        if value is None:
            self._db.execute(SQL["delete_state"], (key,))
        else:
            self._db.execute(SQL["set_state"], (key, value, now_iso()))

    def set_tool(self, tool: str, timeout_ms: int | None, started_at: str) -> None:
        """Record the tool that runs, for the host's decision whether this container is stuck."""
        bound = {"tool": tool, "timeout_ms": timeout_ms, "started_at": started_at, "now": now_iso()}
        self._db.execute(SQL["set_tool"], bound)

    def forget_tool(self) -> None:
        self._db.execute(SQL["forget_tool"], (now_iso(),))

    def _insert_one(self, row: OutboundRow, seq: int) -> None:
        self._db.execute(
            SQL["insert_outbound"],
            {
                "id": row.id,
                "seq": seq,
                "in_reply_to": row.in_reply_to,
                "timestamp": now_iso(),
                "kind": row.kind,
                "channel_type": row.route.channel_type,
                "platform_id": row.route.platform_id,
                "thread_id": row.route.thread_id,
                "content": row.content,
            },
        )

    def _create_missing_tables(self) -> None:
        self._db.executescript(schema())
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(session_state)")}
        if "updated_at" not in columns:
            try:
                self._db.execute("ALTER TABLE session_state ADD COLUMN updated_at TEXT NOT NULL DEFAULT ''")
            except sqlite3.OperationalError as error:
                if "duplicate column" not in str(error):  # another process was quicker
                    raise
