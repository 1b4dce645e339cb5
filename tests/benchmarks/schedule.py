"""Scheduled tasks: 10,000 active series over 50 warm sessions, 1,000 of them due within one minute, and their list."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import func, select

from nanotasks.central import Database
from nanotasks.central.hosts import Instance
from nanotasks.central.series import TaskRun
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.schedule import series
from nanotasks.schedule.definition import Definition
from nanotasks.testing import wait_for
from tests.benchmarks.figures import latency
from tests.benchmarks.stack import Stack

SESSIONS = 50
SERIES = 10_000
DUE = 1_000
LISTS = 10
_MINUTE_MS = 60_000
_YEAR_MS = 365 * 86_400_000


def measure(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every figure of this module, over a stack of its own whose agents are child processes."""
    with Stack(directory, "process") as stack:
        database = Database(stack.settings.central_url)
        try:
            sessions = _warm(stack, database)
            _fill(stack, database, sessions, SERIES - DUE, now_ms() + _YEAR_MS, _YEAR_MS)
            yield "task_list_first_100_of_10000_series", latency(_lists(stack, "--limit", "100"), max=300.0)
            yield "task_list_all_of_10000_series", latency(_lists(stack), max=300.0)
            yield "task_list_json_all_of_10000_series", latency(_lists(stack, "--json"), max=300.0)
            late = _due_within_a_minute(stack, database, sessions)
            yield "task_due_to_claimed_1000_in_a_minute", latency(late, p99=300.0)
        finally:
            database.close()


def _warm(stack: Stack, database: Database) -> list[str]:
    """Sessions of as many chats, each with a live agent."""
    chats = [f"file:task{number}" for number in range(SESSIONS)]
    described = stack.directory / "chats.yaml"
    described.write_text(
        yaml.safe_dump(
            {
                "chats": [{"chat": chat, "unknown_sender_policy": "public"} for chat in chats],
                "wirings": [{"group": "bench", "chat": chat, "engage_pattern": "."} for chat in chats],
            }
        )
    )
    stack.command("apply", "-f", str(described))
    lines = stack.directory / "warm.jsonl"
    lines.write_text(
        "".join(
            json.dumps({"platform_id": chat.partition(":")[2], "id": f"warm-{chat}", "text": "echo warm"}) + "\n"
            for chat in chats
        )
    )
    stack.command("intake", "replay", str(lines))
    answers = stack.settings.data_dir / "channels" / "file"
    wait_for(lambda: len(list(answers.glob("task*.jsonl"))) == SESSIONS, 120, what="an answer of every agent")
    with database.read() as session:
        live = select(AgentSession.id).join(Instance, Instance.session_id == AgentSession.id)
        return list(session.scalars(live.where(Instance.ended_at.is_(None))))


def _fill(stack: Stack, database: Database, sessions: list[str], count: int, begin_ms: int, span_ms: int) -> None:
    """Yearly series, first due evenly spread over a span; returns when their runs stand in the sessions' files."""
    for start in range(0, count, 500):
        with database.write() as session:
            for number in range(start, min(start + 500, count)):
                home = session.get_one(AgentSession, sessions[number % len(sessions)])
                # Due times count to the second, in the sessions' files too.
                at = (begin_ms + span_ms * number // count) // 1000 * 1000
                prompt = Definition("echo done", "every", "365d", "UTC", at)
                series.define(session, stack.settings, home, prompt, created_by="bench")
    unprojected = select(func.count()).where(TaskRun.projected_at.is_(None))

    def all_stand() -> bool:
        with database.read() as session:
            return session.scalars(unprojected).one() == 0

    wait_for(all_stand, 300, every_s=0.2, what="every run in its session's file")


def _lists(stack: Stack, *options: str) -> list[float]:
    """Seconds of `task list`, start of the command included."""
    environment = stack.environment()
    samples = []
    for _ in range(LISTS):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "nanotasks", "task", "list", *options],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        samples.append(time.monotonic() - started)
    return samples


def _due_within_a_minute(stack: Stack, database: Database, sessions: list[str]) -> list[float]:
    """Seconds from the due time of each run until its agent claimed it."""
    begin = now_ms() // 1000 * 1000 + 45_000
    _fill(stack, database, sessions, DUE, begin, _MINUTE_MS)
    assert now_ms() < begin, "the series were not ready in time"
    of_the_minute = (TaskRun.due_at >= begin, TaskRun.due_at < begin + _MINUTE_MS)

    def done() -> bool:
        with database.read() as session:
            ended = select(func.count()).where(TaskRun.state == "ended", *of_the_minute)
            return session.scalars(ended).one() == DUE

    wait_for(done, 240, every_s=0.5, what="the end of every run")
    with database.read() as session:
        claims = session.scalars(select(TaskRun.claimed_at - TaskRun.due_at).where(*of_the_minute))
        return [ms / 1000 for ms in claims if ms is not None]
