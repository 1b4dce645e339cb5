"""A stage for tests of delivery: a host, an agent with sessions on it, and what an agent's runner would write."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.chats import Chat
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.destinations import Destination
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_iso, now_ms
from nanotasks.session import SessionFolder
from nanotasks.settings import Settings

HOST = "here"


@dataclass
class Bells:
    """Signals that nobody hears but the test."""

    rung: list[tuple[Any, ...]] = field(default_factory=list)
    poked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def ring(self, kind: str, *ids: Any) -> None:
        self.rung.append((kind, *ids))

    def poke(self, topic: str, payload: Mapping[str, Any] | None = None) -> None:
        self.poked.append((topic, payload or {}))

    def wait_for_token(self, bucket: str, rate_per_s: float, burst: float = 1.0) -> float:
        return self.pauses.pop(0) if self.pauses else 0.0


@dataclass
class Stage:
    """Makes agents, chats and sessions in one central database and one data directory."""

    db: Database
    settings: Settings

    @classmethod
    def set_up(cls, db: Database, tmp_path: Path, **values: Any) -> Stage:
        settings = Settings(
            data_dir=tmp_path / "data",
            database_url=db.url.render_as_string(hide_password=False),
            host_id=HOST,
            runtime_dir=str(tmp_path / "run"),
            **values,
        )
        with db.write() as session:
            session.add(Host(id=HOST, heartbeat_at=now_ms(), created_at=now_ms()))
        return cls(db, settings)

    def agent(self, name: str = "andy", host_id: str | None = HOST) -> str:
        """An agent group `ag-<name>`."""
        with self.db.write() as session:
            session.add(AgentGroup(id=f"ag-{name}", name=name, folder=name, created_at=now_ms(), host_id=host_id))
        return f"ag-{name}"

    def chat(self, platform_id: str, channel_type: str = "scripted") -> str:
        """A chat `mg-<platform id>`."""
        with self.db.write() as session:
            session.add(
                Chat(id=f"mg-{platform_id}", channel_type=channel_type, platform_id=platform_id, created_at=now_ms())
            )
        return f"mg-{platform_id}"

    def allow(self, agent_id: str, name: str, target_type: str, target_id: str) -> None:
        """A destination of an agent."""
        with self.db.write() as session:
            session.add(
                Destination(
                    agent_group_id=agent_id,
                    local_name=name,
                    target_type=target_type,
                    target_id=target_id,
                    created_at=now_ms(),
                )
            )

    def session(self, name: str, agent_id: str, chat_id: str | None = None) -> Speaker:
        """A session `sess-<name>` with its folder."""
        with self.db.write() as session:
            session.add(
                AgentSession(
                    id=f"sess-{name}",
                    agent_group_id=agent_id,
                    messaging_group_id=chat_id,
                    route_key=name,
                    created_at=now_ms(),
                )
            )
        folder = SessionFolder.of(self.settings.data_dir, agent_id, f"sess-{name}")
        folder.create()
        return Speaker(self, f"sess-{name}", agent_id, folder)

    def agent_ran(self, speaker: Speaker, *, host_id: str = HOST, ended_ago_ms: int | None = None) -> None:
        """An agent of this session is recorded on a host; it lives, or it ended so long ago."""
        with self.db.write() as session:
            session.add(
                Instance(
                    id=f"inst-{speaker.id}",
                    session_id=speaker.id,
                    agent_group_id=speaker.agent_id,
                    host_id=host_id,
                    runtime="process",
                    epoch=1,
                    started_at=now_ms() - 3_600_000,
                    ended_at=None if ended_ago_ms is None else now_ms() - ended_ago_ms,
                )
            )

    def deliveries(self, session_id: str | None = None) -> list[Delivery]:
        """The ledger, in seq order."""
        with self.db.read() as session:
            query = select(Delivery).order_by(Delivery.session_id, Delivery.seq)
            rows = session.scalars(query if session_id is None else query.where(Delivery.session_id == session_id))
            return list(rows)

    def attempts(self, delivery_id: str) -> list[DeliveryAttempt]:
        with self.db.read() as session:
            query = select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == delivery_id)
            return list(session.scalars(query.order_by(DeliveryAttempt.number)))


@dataclass
class Speaker:
    """One session, and its runner, who writes with plain SQL."""

    stage: Stage
    id: str
    agent_id: str
    folder: SessionFolder

    def say(
        self, *texts: str, to: str | None = "family", channel: str | None = "scripted", **columns: Any
    ) -> list[str]:
        """Write one message per text in one commit and return their ids; `columns` replace what they would hold."""
        connection = sqlite3.connect(self.folder.outbound_db, timeout=10)
        ids = []
        with connection:
            (highest,) = connection.execute("SELECT coalesce(max(seq), -1) FROM messages_out").fetchone()
            for text in texts:
                highest += 2
                values = {
                    "id": f"msg-{highest}-{text}"[:60],
                    "seq": highest,
                    "timestamp": now_iso(),
                    "kind": "chat",
                    "content": json.dumps({"text": text}),
                    "platform_id": to,
                    "channel_type": channel,
                } | columns
                names, marks = ", ".join(values), ", ".join("?" * len(values))
                insertion = f"INSERT INTO messages_out ({names}) VALUES ({marks})"  # noqa: S608
                connection.execute(insertion, tuple(values.values()))
                ids.append(str(values["id"]))
        connection.close()
        return ids

    def ack(self, status: str, *ids: str) -> None:
        """Acknowledge inbound rows."""
        connection = sqlite3.connect(self.folder.outbound_db, timeout=10)
        with connection:
            connection.executemany(
                "INSERT OR REPLACE INTO processing_ack VALUES (?, ?, ?)", [(one, status, now_iso()) for one in ids]
            )
        connection.close()

    def hear(self, inbound_id: str, text: str = "hello", *, reply_to: str = "family") -> None:
        """An inbound row with its event and route, as the intake writes them."""
        connection = sqlite3.connect(self.folder.inbound_db, timeout=10)
        with connection:
            (highest,) = connection.execute("SELECT coalesce(max(seq), 0) FROM messages_in").fetchone()
            connection.execute(
                "INSERT INTO messages_in (id, seq, kind, timestamp, channel_type, platform_id, content)"
                " VALUES (?, ?, 'chat', ?, 'scripted', ?, ?)",
                (inbound_id, highest + 2, now_iso(), reply_to, json.dumps({"text": text})),
            )
        connection.close()
        platform_message_id = inbound_id.partition(":")[0]
        with self.stage.db.write() as session:
            event = InboundEvent(
                id=f"ev-{self.id}-{inbound_id}",
                channel_type="scripted",
                platform_id=reply_to,
                platform_message_id=platform_message_id,
                digest=self.id,
                accept_order=highest,
                kind="chat",
                timestamp=now_iso(),
                content="{}",
                received_at=now_ms(),
                state="routed",
            )
            session.add(event)
            session.flush()
            session.add(
                InboundRoute(
                    event_id=event.id,
                    session_id=self.id,
                    agent_group_id=self.agent_id,
                    trigger=1,
                    inbound_id=inbound_id,
                    reply_channel_type="scripted",
                    reply_platform_id=reply_to,
                    state="appended",
                    created_at=now_ms(),
                )
            )

    def inbound(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of inbound.db, as the runner would read them."""
        connection = sqlite3.connect(f"file:{self.folder.inbound_db}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def route_state(self, inbound_id: str) -> str:
        with self.stage.db.read() as session:
            query = select(InboundRoute.state).where(
                InboundRoute.session_id == self.id, InboundRoute.inbound_id == inbound_id
            )
            return session.scalars(query).one()
