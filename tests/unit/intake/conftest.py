"""A house with chats and agents, into which messages are sent."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Accepted, Address, Capabilities, InboundMessage
from nanotasks.intake.accept import accept_all
from nanotasks.intake.append import append_session
from nanotasks.intake.prepared import prepare
from nanotasks.intake.service import RouteResult, route_chat
from nanotasks.session.layout import SessionFolder
from nanotasks.settings import Settings


@dataclass
class House:
    """A central database, a data directory, and short verbs on both. Agents live on the host `here`."""

    db: Database
    data_dir: Path
    threads: bool = False
    numbers: int = field(default=0)

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.data_dir, host_id="here")

    def add(self, *rows: Any) -> None:
        with self.db.write() as session:
            for row in rows:
                session.add(row)
                session.flush()

    def host(self, host_id: str = "here", capacity: int = 50, state: str = "up") -> None:
        self.add(Host(id=host_id, capacity=capacity, state=state, heartbeat_at=1, created_at=1))

    def chat(self, name: str = "family", *, policy: str = "public", is_group: bool = True) -> None:
        self.add(
            Chat(
                id=f"mg-{name}",
                channel_type="file",
                platform_id=name,
                unknown_sender_policy=policy,
                is_group=int(is_group),
                created_at=1,
            )
        )

    def agent(self, name: str = "andy", **fields: Any) -> None:
        self.add(AgentGroup(id=f"ag-{name}", name=name, folder=name, created_at=1, **fields))

    def wire(self, agent: str = "andy", chat: str = "family", **fields: Any) -> None:
        mode = {"engage_mode": "pattern", "engage_pattern": "."}
        row = {"id": f"w-{chat}-{agent}", "messaging_group_id": f"mg-{chat}", "agent_group_id": f"ag-{agent}"}
        self.add(Wiring(**(row | mode | fields), created_at=1))

    def furnish(self, *agents: str, **wiring: Any) -> House:
        """One host, one chat, and agents that are wired to it."""
        self.host()
        self.chat()
        for agent in agents or ("andy",):
            self.agent(agent)
            self.wire(agent, **wiring)
        return self

    def say(self, text: str = "hello", *, chat: str = "family", **fields: Any) -> str:
        """Accept a message and return its event's id."""
        self.numbers += 1
        content = {"text": text, "sender": "Ann", "senderId": "1"} | fields.pop("content", {})
        message = InboundMessage(
            Address("file", chat, fields.pop("thread", None)),
            fields.pop("message_id", f"m{self.numbers}"),
            content,
            "2026-03-01T12:00:00.000Z",
            **fields,
        )
        (accepted,) = accept_all(self.db, [prepare(message)], max_pending=1000)
        assert isinstance(accepted, Accepted)
        return accepted.event_id

    def route(self, chat: str = "family", **options: Any) -> RouteResult:
        return route_chat(
            self.db,
            self.settings,
            "file",
            chat,
            capabilities=lambda _channel: Capabilities(supports_threads=self.threads),
            **options,
        )

    def append(self, result: RouteResult) -> None:
        for session_id in result.touched:
            append_session(self.db, self.data_dir, session_id)

    def event(self, event_id: str) -> InboundEvent:
        with self.db.read() as session:
            return session.scalars(select(InboundEvent).where(InboundEvent.id == event_id)).one()

    def drop(self, event_id: str) -> str | None:
        with self.db.read() as session:
            return session.scalars(select(Drop.reason).where(Drop.event_id == event_id)).one_or_none()

    def sessions(self) -> list[AgentSession]:
        with self.db.read() as session:
            return list(session.scalars(select(AgentSession).order_by(AgentSession.created_at, AgentSession.id)))

    def routes(self) -> list[InboundRoute]:
        with self.db.read() as session:
            return list(session.scalars(select(InboundRoute).order_by(InboundRoute.id)))

    def folder(self, session: AgentSession) -> SessionFolder:
        return SessionFolder.of(self.data_dir, session.agent_group_id, session.id)

    def rows(self, session: AgentSession) -> list[dict[str, Any]]:
        """The session's inbound rows, read as the original's runner would."""
        connection = sqlite3.connect(self.folder(session).inbound_db)
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM messages_in ORDER BY seq")]
        connection.close()
        return rows

    def texts(self, session: AgentSession) -> list[str]:
        return [json.loads(row["content"])["text"] for row in self.rows(session)]


@pytest.fixture
def house(central: Database, tmp_path: Path) -> House:
    """An empty house on SQLite and on PostgreSQL."""
    return House(central, tmp_path / "data")


@pytest.fixture
def small_house(sqlite_central: Database, tmp_path: Path) -> House:
    """An empty house on SQLite only, for tests whose subject is not the database."""
    return House(sqlite_central, tmp_path / "data")
