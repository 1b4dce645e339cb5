"""Where the machine plays: hosts with their workers and daemons, two chats, two agents, and a platform."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from nanotasks.central import Base, Database
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.channels import registry
from nanotasks.channels.contract import (
    Adapter,
    Capabilities,
    DestinationError,
    OutboundMessage,
    PermanentError,
    RateLimitedError,
    SendError,
    Sent,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.clock import now_ms
from nanotasks.intake.pending import Chat as ChatName
from nanotasks.intake.pending import PendingEvent
from nanotasks.settings import Settings
from tests.faults.machine.agents import Daemon
from tests.faults.machine.workers import Worker

# The first knows our keys; what the second does about an unknown outcome is drawn.
CHATS = (("keyed", "family"), ("plain", "work"))
ENDS = ("taken", "transient", "limited", "destination", "permanent", "lost", "doubtful")
POISON = "poison"

_AHEAD = """
SELECT o.id, o.state FROM deliveries AS o JOIN deliveries AS m ON m.lane = o.lane
 WHERE m.id = :id AND o.id <> m.id
   AND (o.seq < m.seq OR (o.seq = m.seq AND o.message_out_id NOT LIKE 'host-%' AND m.message_out_id LIKE 'host-%'))
   AND (o.state IN ('retrying', 'sending') OR (o.state = 'pending' AND o.next_attempt_at <= m.send_started_at))
"""


class Platform:
    """Both channels: sends end as they are told to, and are taken otherwise.

    `arrived` counts the arrivals of each delivery. `excused` are deliveries that were out of their lane's way for a
    while, so that others may have gone before them; `disorder` tells of messages that overtook any other.
    """

    def __init__(self, observer: Database) -> None:
        self._observer = observer
        self.script: list[str] = []
        self.arrived: dict[str, int] = {}
        self.excused: set[str] = set()
        self.disorder: list[str] = []

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        return self.end(message.delivery_id, self.script.pop(0) if self.script else "taken")

    def end(self, delivery_id: str, how: str) -> Sent:
        """Let one send end: return, or raise what the platform says."""
        if how in {"taken", "doubtful"}:
            self._take(delivery_id)
        if how == "taken":
            return Sent(f"sent-{delivery_id}")
        raise _error(how)

    def _take(self, delivery_id: str) -> None:
        if not self.arrived.get(delivery_id) and delivery_id not in self.excused:
            with self._observer.read_core() as connection:
                ahead = connection.execute(text(_AHEAD), {"id": delivery_id}).all()
            passed = [f"{row.id} ({row.state})" for row in ahead if row.id not in self.excused]
            if passed:
                self.disorder.append(f"I3 {delivery_id} arrived before {passed}")
        self.arrived[delivery_id] = self.arrived.get(delivery_id, 0) + 1


def _error(how: str) -> SendError:
    if how == "limited":
        return RateLimitedError("slow down", retry_after_s=20)
    if how in {"lost", "doubtful"}:
        return UnknownOutcomeError("no answer")
    kinds = {"transient": TransientError, "destination": DestinationError, "permanent": PermanentError}
    return kinds[how](how)


class House:
    """One installation. With one host both workers are on it, with two each has its own."""

    def __init__(self, observer: Database, directory: Path, hosts: int, uncertain: Any) -> None:
        self.observer = observer
        self.platform = Platform(observer)
        self.hosts = [f"host-{number}" for number in range(hosts)]
        self.settings = {host: _settings(directory, host, observer) for host in self.hosts}
        self.daemons = {host: Daemon(self.settings[host].data_dir) for host in self.hosts}
        names = [self.hosts[0], self.hosts[-1]]
        self.workers = [
            Worker(f"worker-{number}", observer, self.settings[host], self.daemons[host])
            for number, host in enumerate(names)
        ]
        self._register(uncertain)
        with observer.write() as session:
            self._furnish(session)

    def close(self) -> None:
        for worker in self.workers:
            worker.die()
        for channel, _ in CHATS:
            registry.unregister(channel)

    def workers_of(self, host_id: str) -> list[Worker]:
        return [one for one in self.workers if one.settings.host_id == host_id]

    def _register(self, uncertain: Any) -> None:
        offers = (Capabilities(idempotent=True), Capabilities(uncertain=uncertain))
        for (channel, _), offered in zip(CHATS, offers, strict=True):
            registry.register(_adapter(channel, offered, self.platform))

    def _furnish(self, session: Session) -> None:
        now = now_ms()
        rows: list[Base] = [Host(id=host, heartbeat_at=now, created_at=now) for host in self.hosts]
        for channel, name in CHATS:
            rows.append(
                Chat(
                    id=f"mg-{name}",
                    channel_type=channel,
                    platform_id=name,
                    is_group=1,
                    unknown_sender_policy="public",
                    created_at=now,
                )
            )
        # The second agent's host is chosen by its first message.
        rows.append(AgentGroup(id="ag-andy", name="andy", folder="andy", created_at=now, host_id=self.hosts[0]))
        rows.append(AgentGroup(id="ag-bert", name="bert", folder="bert", created_at=now))
        rows += [_wiring("family", "andy", "."), _wiring("work", "bert", "."), _wiring("family", "bert", "bert")]
        rows += [_permission("andy", "work"), _permission("bert", "family")]
        for row in rows:
            session.add(row)
            session.flush()


def _settings(directory: Path, host: str, observer: Database) -> Settings:
    return Settings(
        data_dir=directory / host,
        database_url=observer.url.render_as_string(hide_password=False),
        host_id=host,
        runtime_dir=str(directory / "run"),
        runtime="process",
        timezone="UTC",
        delivery_timeout_s=5.0,
        delivery_backoff_max_s=30.0,
        delivery_horizon_s=300.0,
        lane_hold_s=40.0,
        wake_backoff_max_s=20.0,
    )


def _wiring(chat: str, agent: str, pattern: str) -> Wiring:
    return Wiring(
        id=f"w-{chat}-{agent}",
        messaging_group_id=f"mg-{chat}",
        agent_group_id=f"ag-{agent}",
        engage_mode="pattern",
        engage_pattern=pattern,
        ignored_message_policy="accumulate",
        created_at=now_ms(),
    )


def _permission(agent: str, chat: str) -> Destination:
    return Destination(
        agent_group_id=f"ag-{agent}",
        local_name=chat,
        target_type="channel",
        target_id=f"mg-{chat}",
        created_at=now_ms(),
    )


def _adapter(channel: str, offered: Capabilities, platform: Platform) -> Adapter:
    return Adapter(channel, lambda _settings: offered, sender=lambda _settings: platform)


def refuse_poison(_connection: Connection, _chat: ChatName, event: PendingEvent) -> bool:
    """An interceptor that has a fault: it cannot stand some messages."""
    if event.content.text.startswith(POISON):
        raise ValueError(event.content.text)
    return False
