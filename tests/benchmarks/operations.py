"""What an operator sees: notice of a commit, due times, the memory of an agent, and a killed worker."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanotasks.central import Database
from nanotasks.clock import iso, now_ms
from nanotasks.session import SessionFolder
from nanotasks.testing import wait_for
from tests.benchmarks.figures import latency, repeated
from tests.benchmarks.stack import Stack
from tests.benchmarks.terminal import Terminal

NOTICES = 100
DUE = 60
KILLS = 3


def measure(stack: Stack) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure of this module over a running stack."""
    session = _session_of_the_file_chat(stack)
    yield "outbound_commit_to_adapter", latency(_notices(stack, session), p50=8.0, p99=40.0)
    yield "due_to_claimed_by_a_warm_agent", latency(_due(session), p99=300.0)
    yield "runner_memory", repeated(_runner_rss(stack), "MiB RSS", max=30.0)
    yield "kill_9_of_the_worker_to_next_answer", repeated((_kill(stack, n) for n in range(KILLS)), "s", max=5.0)


def _session_of_the_file_chat(stack: Stack) -> SessionFolder:
    """The session of the chat `file:notice`, with a live agent in it."""
    lines = stack.directory / "hello.jsonl"
    lines.write_text(json.dumps({"platform_id": "notice", "id": "hello", "text": "echo hello", "is_mention": True}))
    stack.command("intake", "replay", str(lines))
    wait_for(lambda: _answers(stack), 30, what="an answer in the file channel")
    for found in stack.settings.data_dir.glob("sessions/*/*"):
        if not (found / "host" / "inbound.db").exists():
            continue
        with sqlite3.connect(f"file:{found}/host/inbound.db?mode=ro", uri=True) as connection:
            (ours,) = connection.execute("SELECT count(*) FROM messages_in WHERE channel_type = 'file'").fetchone()
        connection.close()
        if ours:
            return SessionFolder(found)
    raise AssertionError("the file chat has no session")


def _answers(stack: Stack) -> int:
    path = stack.settings.data_dir / "channels" / "file" / "notice.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _notices(stack: Stack, folder: SessionFolder) -> list[float]:
    """Seconds from a commit in outbound.db until the adapter has written the message."""
    samples = []
    for number in range(NOTICES):
        before = _answers(stack)
        _write(folder, number)
        started = time.monotonic()
        wait_for(lambda before=before: _answers(stack) > before, 30, every_s=0.0005, what="the message")  # type: ignore[misc]
        samples.append(time.monotonic() - started)
        time.sleep(0.03)
    return samples


def _write(folder: SessionFolder, number: int) -> None:
    connection = sqlite3.connect(folder.outbound_db, timeout=5)
    with connection:
        connection.execute(
            "INSERT INTO messages_out (id, seq, timestamp, kind, platform_id, channel_type, content)"
            " SELECT ?, (max(coalesce(max(seq), 0), 1000) | 1) + 2, datetime('now'), 'chat', 'notice', 'file', ?"
            " FROM messages_out",
            (f"bench-{number}", '{"text":"notice"}'),
        )
    connection.close()


def _due(folder: SessionFolder) -> list[float]:
    """Seconds from the due time of a row until the agent's claim of it, for rows due one after the other."""
    begin = now_ms() + 1500
    due_ms = {f"due-{number}": begin + 97 * number for number in range(DUE)}
    connection = sqlite3.connect(folder.inbound_db, timeout=5)
    with connection:
        (seq,) = connection.execute("SELECT max(seq) FROM messages_in").fetchone()
        connection.executemany(
            "INSERT INTO messages_in (id, seq, kind, timestamp, process_after, platform_id, channel_type, content)"
            " VALUES (?, ?, 'chat', ?, ?, 'notice', 'file', '{\"text\":\"silent\",\"sender\":\"Bench\"}')",
            [
                (ident, seq + 5002 + 2 * number, iso(begin), iso(at))
                for number, (ident, at) in enumerate(due_ms.items())
            ],
        )
    connection.close()
    samples: dict[str, float] = {}

    def look() -> bool:
        reader = sqlite3.connect(f"file:{folder.outbound_db}?mode=ro", uri=True, timeout=5)
        acked = reader.execute("SELECT message_id FROM processing_ack WHERE message_id LIKE 'due-%'").fetchall()
        reader.close()
        now = now_ms()
        for (ident,) in acked:
            samples.setdefault(ident, max(0, now - due_ms[ident]) / 1000)
        return len(samples) == DUE

    wait_for(look, 60, every_s=0.002, what="every due row claimed")
    return list(samples.values())


def _kill(stack: Stack, number: int) -> float:
    """Seconds from the kill -9 of the worker (in mid-turn), and its restart, until another chat is answered."""
    busy = Terminal(stack.terminal, "c1")
    busy.say("slow 2 done", f"slow-{number}")
    wait_for(lambda: _claims(stack) > 0, 10, what="the slow turn")
    other = Terminal(stack.terminal, "c2")
    stack.kill("worker")
    started = time.monotonic()
    stack.spawn("worker")
    other.say("echo after", f"after-{number}")
    other.wait("message", 60)
    taken = time.monotonic() - started
    other.wait("settled", 60)
    busy.wait("settled", 60)
    busy.close()
    other.close()
    return taken


def _claims(stack: Stack) -> int:
    found = 0
    for path in stack.settings.data_dir.glob("sessions/*/*/workspace/outbound.db"):
        reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        (claims,) = reader.execute("SELECT count(*) FROM processing_ack WHERE status = 'processing'").fetchone()
        reader.close()
        found += claims
    return found


def _runner_rss(stack: Stack) -> list[float]:
    database = Database(stack.settings.central_url)
    with database.read() as session:
        rows = session.connection().exec_driver_sql("SELECT pid FROM instances WHERE ended_at IS NULL").scalars()
        pids = [pid for pid in rows if pid]
    database.close()
    return [_status_kb(pid, "VmRSS") / 1024 for pid in pids]


def _status_kb(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), flags=re.MULTILINE)
    return int(found[1]) if found else 0
