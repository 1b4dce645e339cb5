"""A stage for tests of waking: sessions whose agents are scripts, run as real child processes.

The scripts speak to the session files by the documented SQL alone, as any runner would.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from nanotasks.central import Database
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.runtimes.contract import Running, StartSpec
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import InboundRow, NewRow
from nanotasks.testing import wait_for
from nanotasks.wake.due import announced
from nanotasks.wake.here import Here
from tests.scene import Stage

AGENT = """
import os, pathlib, signal, sqlite3, sys, time

work = pathlib.Path(os.environ["NANOTASKS_WORKSPACE"])

def ack(message_id, status):
    with sqlite3.connect(work / "outbound.db", isolation_level=None) as db:
        db.execute("INSERT OR REPLACE INTO processing_ack VALUES (?, ?, datetime('now'))", (message_id, status))

def beat():
    (work / ".heartbeat").touch()

def tell(name, text=""):
    (work / (name + ".new")).write_text(str(text))
    os.rename(work / (name + ".new"), work / name)

def wait():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tell("ready", os.getpid())
    signal.pause()

exec(os.environ["SCRIPT"])
"""
WAIT = "wait()"
CLAIM = "ack('m1', 'processing'); wait()"
FINISH = "ack('m1', 'completed'); wait()"


class ScriptedRuntime(ProcessRuntime):
    """The process runtime, with scripts in the place of the runner."""

    def __init__(self, data_dir: Path, code: Path) -> None:
        super().__init__(data_dir)
        self.code = code
        self.script = WAIT
        self.started: list[StartSpec] = []

    def start(self, spec: StartSpec) -> Running:
        self.started.append(spec)
        scripted = {**spec.environment, "PYTHONPATH": str(self.code), "SCRIPT": self.script}
        return super().start(replace(spec, environment=scripted))


@dataclass
class Household:
    """One host with one agent group in one chat; sessions are made by name."""

    stage: Stage
    runtime: ScriptedRuntime
    here: Here
    folders: dict[str, SessionFolder] = field(default_factory=dict)

    @classmethod
    def set_up(cls, db: Database, tmp_path: Path, **values: Any) -> Household:
        stage = Stage.set_up(db, tmp_path, container_stop_grace_s=2.0, **values)
        package = tmp_path / "code" / "agent_runner"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(AGENT)
        runtime = ScriptedRuntime(stage.settings.data_dir, tmp_path / "code")
        stage.agent()
        stage.chat("c1")
        return cls(stage, runtime, Here(db, stage.settings, runtime, lambda _name: runtime))

    def clear(self) -> None:
        for running in self.runtime.list():
            self.runtime.stop(running.session_id, 0, "the test is over")

    def session(self, name: str = "s1") -> str:
        speaker = self.stage.session(name, "ag-andy", "mg-c1")
        self.folders[f"sess-{name}"] = speaker.folder
        return f"sess-{name}"

    def due(self, session_id: str, message_id: str = "m1", in_ms: int = 0) -> None:
        """Give the session a row, as intake does."""
        after = now_ms() + in_ms if in_ms else None
        row = NewRow(message_id, "chat", '{"text": "hello"}', now_ms(), process_after_ms=after)
        with (
            open_inbound(self.folders[session_id]) as inbound,
            announced(self.here.db, inbound, session_id, after or 0),
        ):
            inbound.insert([row])

    def route(self, session_id: str, message_id: str) -> None:
        """Have a message of a chat stand behind the row with this id."""
        with self.here.db.write() as session:
            event = InboundEvent(
                id=f"ev-{message_id}",
                channel_type="file",
                platform_id="room",
                platform_message_id=message_id,
                digest="",
                accept_order=now_ms(),
                kind="chat",
                timestamp="",
                content='{"text": "hello"}',
                received_at=now_ms(),
                state="routed",
            )
            session.add(event)
            session.flush()
            session.add(
                InboundRoute(
                    event_id=event.id,
                    session_id=session_id,
                    agent_group_id=session.get_one(AgentSession, session_id).agent_group_id,
                    trigger=1,
                    inbound_id=message_id,
                    state="appended",
                    created_at=now_ms(),
                )
            )

    def row(self, session_id: str, message_id: str = "m1") -> InboundRow:
        with open_inbound(self.folders[session_id]) as inbound:
            found = inbound.row(message_id)
        assert found is not None
        return found

    def record(self, session_id: str) -> AgentSession:
        with self.here.db.read() as session:
            return session.get_one(AgentSession, session_id)

    def change(self, session_id: str, **values: Any) -> None:
        with self.here.db.write() as session:
            session.execute(update(AgentSession).where(AgentSession.id == session_id).values(**values))

    def change_instance(self, instance_id: str, **values: Any) -> None:
        with self.here.db.write() as session:
            session.execute(update(Instance).where(Instance.id == instance_id).values(**values))

    def instances(self, session_id: str) -> list[Instance]:
        """Every start of the session, in order."""
        with self.here.db.read() as session:
            mine = select(Instance).where(Instance.session_id == session_id)
            return list(session.scalars(mine.order_by(Instance.epoch)))

    def told(self, session_id: str, name: str = "ready") -> str:
        """Wait for a fact that the agent tells, and forget it."""
        path = self.folders[session_id].workspace / name
        wait_for(path.exists, what=f"{name}; log: {self.runtime.last_log(session_id)}")
        text = path.read_text()
        path.unlink()
        return text

    def dead(self, session_id: str) -> None:
        """Wait until the session's agent has ended by itself."""
        wait_for(lambda: not self.runtime.is_alive(session_id), what=f"the end of {session_id}")

    def says(self, session_id: str, statement: str, *values: Any) -> None:
        """Write into the agent's outbound.db."""
        db = sqlite3.connect(self.folders[session_id].outbound_db, isolation_level=None)
        db.execute(statement, values)
        db.close()
