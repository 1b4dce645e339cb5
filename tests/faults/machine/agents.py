"""Agents that live as long as they are told to, and the daemon that runs them and outlives every worker.

An agent speaks to its session's files by the documented SQL alone, as any runner would.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from nanotasks.clock import iso, now_ms
from nanotasks.runtimes.contract import AlreadyRunningError, Exit, Running, StartFailedError, StartSpec
from nanotasks.session.layout import SessionFolder

_DUE = """
SELECT m.id, m."trigger", m.channel_type, m.platform_id FROM inbound.messages_in AS m
 WHERE m.status = 'pending' AND (m.process_after IS NULL OR datetime(m.process_after) <= datetime(?))
   AND NOT EXISTS (SELECT 1 FROM processing_ack AS a WHERE a.message_id = m.id)
 ORDER BY m.seq
"""
_CLAIMED = """
SELECT m.id, m.channel_type, m.platform_id FROM processing_ack AS a JOIN inbound.messages_in AS m ON m.id = a.message_id
 WHERE a.status = 'processing' ORDER BY m.seq
"""
_HIGHEST = (
    "SELECT max((SELECT coalesce(max(seq), 0) FROM messages_out),"
    " (SELECT coalesce(max(seq), 0) FROM inbound.messages_in))"
)


class Agent:
    """The runner of one session. `chats` are the channel types that it answers on."""

    def __init__(self, folder: SessionFolder, running: Running) -> None:
        self.folder, self.running = folder, running
        self.beat()
        with closing(self._open()) as db:
            db.execute("DELETE FROM processing_ack WHERE status = 'processing'")

    def beat(self) -> None:
        """A sign of life."""
        path = self.folder.workspace / ".heartbeat"
        path.touch()
        os.utime(path, (now_ms() / 1000, now_ms() / 1000))

    def claim(self) -> bool:
        """Take what is due, if something of it wakes; whether there was anything."""
        with closing(self._open()) as db:
            due = db.execute(_DUE, (iso(now_ms()),)).fetchall()
            if not any(trigger for _, trigger, _, _ in due):
                return False
            self._ack(db, "processing", [row[0] for row in due])
        return True

    def finish(self, how: str) -> bool:
        """End the turn: `answer` what is claimed, say nothing (`silent`), or say that it failed (`failed`).

        Whether there was a turn. Replies and acks are one commit.
        """
        with closing(self._open()) as db:
            claimed = db.execute(_CLAIMED).fetchall()
            db.execute("BEGIN IMMEDIATE")
            for message_id, channel, chat in claimed:
                if how == "answer" and channel != "agent":
                    self._write(db, f"re {message_id}", channel, chat, message_id)
            self._ack(db, "failed" if how == "failed" else "completed", [row[0] for row in claimed])
            db.execute("COMMIT")
        return bool(claimed)

    def say(self, text: str, channel: str, chat: str) -> None:
        """A message that answers nothing."""
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            self._write(db, text, channel, chat, None)
            db.execute("COMMIT")

    def _write(self, db: sqlite3.Connection, text: str, channel: str, chat: str, in_reply_to: str | None) -> None:
        (highest,) = db.execute(_HIGHEST).fetchone()
        seq = highest + 1 + highest % 2
        db.execute(
            "INSERT INTO messages_out (id, seq, in_reply_to, timestamp, kind, platform_id, channel_type, content)"
            " VALUES (?, ?, ?, ?, 'chat', ?, ?, ?)",
            (f"out-{seq}", seq, in_reply_to, iso(now_ms()), chat, channel, json.dumps({"text": text})),
        )

    def _ack(self, db: sqlite3.Connection, status: str, message_ids: list[str]) -> None:
        now = iso(now_ms())[:19].replace("T", " ")
        rows = [(one, status, now) for one in message_ids]
        db.executemany("INSERT OR REPLACE INTO processing_ack VALUES (?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.folder.outbound_db, timeout=10, isolation_level=None)
        # The machine under the test loses no power.
        db.execute("PRAGMA synchronous = OFF")
        db.execute("ATTACH ? AS inbound", (str(self.folder.inbound_db),))
        return db


class Daemon:
    """The container runtime of one host, in memory: a session has one agent at most, and workers may come and go."""

    name = "process"
    isolates = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.agents: dict[str, Agent] = {}
        self.exits: list[Exit] = []
        self.refuses = 0
        self._last: dict[str, Exit] = {}
        self._count = 0

    def start(self, spec: StartSpec) -> Running:
        if spec.session_id in self.agents:
            raise AlreadyRunningError(self.agents[spec.session_id].running)
        if self.refuses:
            self.refuses -= 1
            raise StartFailedError("It was told not to start one.")
        self._count += 1
        name = f"agent-{self._count}"
        running = Running(spec.session_id, spec.instance_id, spec.epoch, name, now_ms())
        folder = SessionFolder.of(self._data_dir, spec.agent_group_id, spec.session_id)
        self.agents[spec.session_id] = Agent(folder, running)
        return running

    def find(self, session_id: str) -> Running | None:
        agent = self.agents.get(session_id)
        return agent.running if agent else None

    def is_alive(self, session_id: str) -> bool:
        return session_id in self.agents

    def list(self) -> list[Running]:
        return [agent.running for agent in self.agents.values()]

    def stop(self, session_id: str, grace_s: float, reason: str) -> Exit | None:
        return self._end(session_id, 0, "stopped") if session_id in self.agents else None

    def crash(self, session_id: str) -> None:
        """The agent ends by itself; what it had claimed stays claimed."""
        self.exits.append(self._end(session_id, 1, "crashed"))

    def last_exit(self, session_id: str, instance_id: str) -> Exit | None:
        last = self._last.get(session_id)
        return last if last and last.instance_id == instance_id and session_id not in self.agents else None

    def last_log(self, session_id: str, lines: int = 20) -> str:
        return ""

    def watch(self, on_exit: object, stop: object) -> None:
        raise NotImplementedError("the machine looks at `exits`")

    def close(self) -> None:
        """Nothing is open."""

    def _end(self, session_id: str, code: int, reason: str) -> Exit:
        ended = Exit(session_id, self.agents.pop(session_id).running.instance_id, code, reason)
        self._last[session_id] = ended
        return ended
