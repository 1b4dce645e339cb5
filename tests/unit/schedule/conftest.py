"""A stage with one agent, its chat and its session, a clock that can be moved, and what a runner writes about tasks."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, now_ms
from nanotasks.deliver.service import deliver_session
from nanotasks.schedule import series as verbs
from nanotasks.schedule.definition import Definition, Options
from nanotasks.schedule.project import project
from nanotasks.session.inbound import open_inbound
from nanotasks.session.rows import InboundRow
from nanotasks.testing import ScriptedSender, channel_of
from tests.scene import Bells, Speaker, Stage

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.fixture
def sender() -> Iterator[ScriptedSender]:
    """The sender of the channel `scripted`."""
    scripted = ScriptedSender()
    with channel_of(scripted):
        yield scripted


class Clock:
    """The time of this process; `at` and `forward` move it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_ns = 0
        self._real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: self._real() + self._ahead_ns)

    def forward(self, ms: int) -> None:
        self._ahead_ns += ms * 1_000_000

    def to(self, ms: int) -> None:
        self.forward(ms - now_ms())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that is moved by hand."""
    return Clock(monkeypatch)


@dataclass
class Tasks:
    """Scheduled tasks of Andy's session, seen from all sides."""

    andy: Speaker
    bells: Bells = field(default_factory=Bells)

    @property
    def db(self) -> Database:
        return self.andy.stage.db

    def define(self, kind: str, expression: str, first_at: int | None = None, **options: Any) -> str:
        """Make a series; its file is not brought in line yet."""
        definition = Definition(
            "Water the flowers", kind, expression, "Europe/Berlin", first_at, options=Options(**options)
        )
        with self.db.write() as session:
            home = session.get_one(AgentSession, self.andy.id)
            made = verbs.define(session, self.andy.stage.settings, home, definition, created_by="test")
            return made.id

    def project(self, *, waking: bool = False) -> list[tuple[Any, ...]]:
        return list(project(self.db, self.andy.stage.settings, self.andy.id, waking=waking))

    def deliver(self) -> None:
        """What the host does when the agent has written something."""
        drained = deliver_session(self.db, self.andy.stage.settings, self.andy.id, bells=self.bells)
        for signal in drained.signals:
            if signal[0] == "deliver":
                deliver_session(self.db, self.andy.stage.settings, self.andy.id, bells=self.bells)

    def ask(self, action: str, **content: Any) -> str:
        """A request of the agent, delivered; the id of its row."""
        (row_id,) = self.andy.say(
            "x", to=None, channel=None, kind="system", content=json.dumps({"action": action, **content})
        )
        self.deliver()
        return row_id

    def series(self, series_id: str) -> TaskSeries:
        with self.db.read() as session:
            return session.get_one(TaskSeries, series_id)

    def runs(self, series_id: str) -> list[TaskRun]:
        with self.db.read() as session:
            mine = select(TaskRun).where(TaskRun.series_id == series_id)
            return list(session.scalars(mine.order_by(TaskRun.scheduled_for)))

    def outcomes(self, series_id: str) -> list[str | None]:
        return [run.outcome or run.state for run in self.runs(series_id)]

    def rows(self) -> list[InboundRow]:
        """The task rows of the file, in seq order."""
        connection = sqlite3.connect(self.andy.folder.inbound_db)
        ids = connection.execute("SELECT id FROM messages_in WHERE kind = 'task' ORDER BY seq").fetchall()
        connection.close()
        with open_inbound(self.andy.folder) as inbound:
            return [row for (one,) in ids if (row := inbound.row(one)) is not None]

    def open_rows(self) -> list[InboundRow]:
        return [row for row in self.rows() if row.status in {"pending", "paused"}]

    def claim(self, inbound_id: str) -> None:
        """The agent takes a row."""
        self._report(inbound_id, claimed_at=iso(now_ms()))
        self.andy.ack("processing", inbound_id)
        self.deliver()

    def end(self, inbound_id: str, outcome: str = "succeeded", **report: Any) -> None:
        """The agent ends a row."""
        self._report(inbound_id, ended_at=iso(now_ms()), outcome=outcome, **report)
        self.andy.ack("completed", inbound_id)
        self.deliver()

    def run(self, inbound_id: str, outcome: str = "succeeded", **report: Any) -> None:
        self.claim(inbound_id)
        self.end(inbound_id, outcome, **report)

    def _report(self, inbound_id: str, **columns: Any) -> None:
        connection = sqlite3.connect(self.andy.folder.outbound_db, timeout=10)
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS task_reports (message_id TEXT PRIMARY KEY, claimed_at TEXT, ended_at TEXT,"
                " outcome TEXT, error_class TEXT, error TEXT, result TEXT)"
            )
            connection.execute("INSERT OR IGNORE INTO task_reports (message_id) VALUES (?)", (inbound_id,))
            for name, value in columns.items():
                connection.execute(f"UPDATE task_reports SET {name} = ? WHERE message_id = ?", (value, inbound_id))  # noqa: S608
        connection.close()


@pytest.fixture
def tasks(central: Database, tmp_path: Path, sender: ScriptedSender, clock: Clock) -> Tasks:
    """Andy's session in the chat `family`, on SQLite and on PostgreSQL."""
    stage = Stage.set_up(central, tmp_path, task_backoff_s=10.0)
    return Tasks(stage.session("andy", stage.agent("andy"), stage.chat("family")))
