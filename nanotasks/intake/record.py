"""Writing down where a batch of events goes: sessions, routes, drops, refusals, engagements, and the events' ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from nanotasks.central.base import table_of
from nanotasks.central.engine import insert_missing
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.sessions import AgentSession, ThreadEngagement
from nanotasks.channels.contract import Address
from nanotasks.deliver.host_messages import enter_host_message
from nanotasks.domain.commands import refusal
from nanotasks.domain.routing import Action, Outcome, Routing
from nanotasks.ids import new_id
from nanotasks.intake.facts import Facts
from nanotasks.intake.pending import Chat, PendingEvent

_END = (
    update(table_of(InboundEvent))
    .where(table_of(InboundEvent).c.id == bindparam("event_id"))
    .values(state=bindparam("ended"), routed_at=bindparam("at"))
)
_route = table_of(InboundRoute).c
_TAKEN = select(_route.session_id, _route.inbound_id).where(
    _route.session_id.in_(bindparam("session_ids", expanding=True)),
    _route.inbound_id.in_(bindparam("inbound_ids", expanding=True)),
)

_SESSIONS_LOCKED = (
    select(table_of(AgentSession).c.id)
    .where(table_of(AgentSession).c.id.in_(bindparam("session_ids", expanding=True)))
    .order_by(table_of(AgentSession).c.id)
    .with_for_update(key_share=True)
)


class SessionTakenError(Exception):
    """Another chat's router made the same session first; what was decided without it is decided again."""


@dataclass(frozen=True)
class Refusal:
    session_id: str
    event_id: str
    agent_group_id: str
    address: Address
    text: str


@dataclass
class Record:
    """What a batch writes, collected in memory and written with few statements.

    `groups` has the agent group of every session with a new route; `woken` those that are woken, and where their
    typing shows. `messages` are the platform's ids of all that was decided on.
    """

    chat: Chat
    facts: Facts
    now_ms: int
    sessions: list[dict[str, Any]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    drops: list[dict[str, Any]] = field(default_factory=list)
    engagements: list[dict[str, Any]] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    woken: list[tuple[str, Address]] = field(default_factory=list)
    subscriptions: list[Address] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    @property
    def agent_groups(self) -> set[str]:
        """The agent groups that have something to do now."""
        return {*self.groups.values(), *(one.agent_group_id for one in self.refusals)}

    def add(self, event: PendingEvent, thread_id: str | None, routing: Routing) -> None:
        """Take down what was decided about one event."""
        here = Address(*self.chat, thread_id)
        self.messages.append(event.platform_message_id)
        for outcome in routing.outcomes:
            self._add_outcome(event, here, outcome)
        if any(outcome.sticky for outcome in routing.outcomes):
            self.subscriptions.append(here)
        if routing.drop is not None:
            self._add_drop(event, here, routing)
        state = "routed" if routing.routed else "dropped"
        self.ends.append({"event_id": event.id, "ended": state, "at": self.now_ms})

    def _add_outcome(self, event: PendingEvent, here: Address, outcome: Outcome) -> None:
        session_id = self._session(outcome)
        answers_to = event.reply_to or here
        if outcome.sticky:
            self._engage(session_id, here.thread_id or "")
        if outcome.action is Action.REFUSE:
            told = refusal(event.content.command_text)
            self.refusals.append(Refusal(session_id, event.id, outcome.agent_group_id, answers_to, told))
        elif outcome.action in {Action.WAKE, Action.CONTEXT}:
            self.routes.append(
                {
                    "event_id": event.id,
                    "session_id": session_id,
                    "agent_group_id": outcome.agent_group_id,
                    "trigger": int(outcome.action is Action.WAKE),
                    "inbound_id": f"{event.platform_message_id}:{outcome.agent_group_id}",
                    "reply_channel_type": answers_to.channel_type,
                    "reply_platform_id": answers_to.platform_id,
                    "reply_thread_id": answers_to.thread_id,
                    "created_at": self.now_ms,
                }
            )
            self.groups[session_id] = outcome.agent_group_id
            if outcome.action is Action.WAKE:
                self.woken.append((session_id, here))

    def _session(self, outcome: Outcome) -> str:
        known = self.facts.sessions.get(outcome.place.route_key)
        if known is not None:
            return known
        assert self.facts.chat is not None
        session_id = new_id("sess")
        self.sessions.append(
            {
                "id": session_id,
                "agent_group_id": outcome.agent_group_id,
                "messaging_group_id": self.facts.chat.id,
                "thread_id": outcome.place.thread_id,
                "route_key": outcome.place.route_key,
                "created_at": self.now_ms,
            }
        )
        self.facts.sessions[outcome.place.route_key] = session_id
        return session_id

    def _engage(self, session_id: str, thread_id: str) -> None:
        assert self.facts.chat is not None
        if (session_id, thread_id) not in self.facts.engaged:
            self.facts.engaged.add((session_id, thread_id))
            self.engagements.append(
                {
                    "session_id": session_id,
                    "messaging_group_id": self.facts.chat.id,
                    "thread_id": thread_id,
                    "engaged_at": self.now_ms,
                }
            )

    def _add_drop(self, event: PendingEvent, here: Address, routing: Routing) -> None:
        note = routing.drop
        assert note is not None
        self.drops.append(
            {
                "id": new_id("drop"),
                "event_id": event.id,
                "channel_type": here.channel_type,
                "platform_id": here.platform_id,
                "thread_id": here.thread_id,
                "user_id": note.user_id,
                "sender_name": event.content.sender.label,
                "reason": note.reason,
                "messaging_group_id": self.facts.chat.id if self.facts.chat else None,
                "agent_group_id": note.agent_group_id,
                "created_at": self.now_ms,
            }
        )

    def write(self, connection: Connection) -> None:
        """Write it all. Raises `SessionTakenError` when a session was made by somebody else in between."""
        if self.sessions:
            # Sorted, so that the routers of two chats never wait for each other's sessions.
            rows = sorted(self.sessions, key=lambda row: str(row["route_key"]))
            made = connection.execute(insert_missing(connection, AgentSession), rows).rowcount
            if made != len(self.sessions):
                raise SessionTakenError
        if self.routes:
            _make_ids_unique(connection, self.routes)
            # A replayed event has the routes of its first time already.
            connection.execute(insert_missing(connection, InboundRoute), self.routes)
        if self.drops:
            connection.execute(insert_missing(connection, Drop), self.drops)
        if self.engagements:
            connection.execute(insert_missing(connection, ThreadEngagement), self.engagements)
        for one in self.refusals:
            key = f"refusal-{one.event_id}-{one.agent_group_id}"
            enter_host_message(connection, one.session_id, key, one.address, one.text)
        connection.execute(_END, self.ends)


def _make_ids_unique(connection: Connection, routes: Sequence[dict[str, Any]]) -> None:
    """Give a second message under one platform id, or of another chat, the next free `<id>~2` in its session."""
    if connection.dialect.name != "sqlite":
        # The routers of two chats may write to one session at the same time, and must not take one id twice.
        connection.execute(_SESSIONS_LOCKED, {"session_ids": sorted({route["session_id"] for route in routes})})
    taken = _taken(connection, {route["session_id"] for route in routes}, {route["inbound_id"] for route in routes})
    for route in routes:
        base, number = route["inbound_id"], 2
        while (route["session_id"], route["inbound_id"]) in taken:
            route["inbound_id"] = f"{base}~{number}"
            number += 1
            taken |= _taken(connection, {route["session_id"]}, {route["inbound_id"]})
        taken.add((route["session_id"], route["inbound_id"]))


def _taken(connection: Connection, session_ids: set[str], inbound_ids: set[str]) -> set[tuple[str, str]]:
    found = connection.execute(_TAKEN, {"session_ids": list(session_ids), "inbound_ids": list(inbound_ids)})
    return {(row.session_id, row.inbound_id) for row in found}
