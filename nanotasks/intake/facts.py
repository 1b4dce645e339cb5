"""What routing has to know about a chat and those who write in it, gathered for a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, select

from nanotasks.central.base import table_of
from nanotasks.central.chats import Chat as ChatRow
from nanotasks.central.chats import Wiring
from nanotasks.central.engine import insert_missing
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession, ThreadEngagement
from nanotasks.channels.contract import Capabilities
from nanotasks.domain.access import NOBODY, Standing
from nanotasks.domain.engage import is_selective
from nanotasks.domain.routing import ChatFacts, WiringFacts
from nanotasks.domain.sessions import SessionPlace, effective_mode, session_place, thread_of
from nanotasks.ids import new_id
from nanotasks.intake.pending import Chat, PendingEvent
from nanotasks.people.identity import Identity, remember
from nanotasks.people.standing import standings

CapabilitiesOf = Callable[[str], Capabilities | None]

REGISTERED_POLICY = "request_approval"

_chat, _wiring, _group = table_of(ChatRow).c, table_of(Wiring).c, table_of(AgentGroup).c
_session, _engagement = table_of(AgentSession).c, table_of(ThreadEngagement).c
_here = (_chat.channel_type == bindparam("channel_type"), _chat.platform_id == bindparam("platform_id"))

_CHAT = select(_chat.id, _chat.is_group, _chat.unknown_sender_policy, _chat.denied_at).where(*_here)
_WIRINGS = (
    select(
        _wiring.agent_group_id,
        _wiring.session_mode,
        _wiring.engage_mode,
        _wiring.engage_pattern,
        _wiring.sender_scope,
        _wiring.ignored_message_policy,
        _group.host_id,
    )
    .join(table_of(AgentGroup), _group.id == _wiring.agent_group_id)
    .where(_wiring.messaging_group_id == bindparam("chat_id"))
    .order_by(_wiring.priority.desc(), _wiring.agent_group_id)
)
_PATTERNS = (
    select(_wiring.engage_mode, _wiring.engage_pattern)
    .join(table_of(ChatRow), _chat.id == _wiring.messaging_group_id)
    .where(*_here)
)
_SESSIONS = select(_session.route_key, _session.id).where(
    _session.route_key.in_(bindparam("route_keys", expanding=True)), _session.status == "active"
)
_ENGAGED = select(_engagement.session_id, _engagement.thread_id).where(
    _engagement.session_id.in_(bindparam("session_ids", expanding=True)),
    _engagement.messaging_group_id == bindparam("chat_id"),
)


@dataclass
class Facts:
    """What holds for the batch; `sessions` (route key → id) and `engaged` (session, thread) grow while it is routed.

    `hosts` has the host of every wired agent group that has one.
    """

    chat: ChatFacts | None = None
    wirings: list[WiringFacts] = field(default_factory=list)
    hosts: dict[str, str] = field(default_factory=dict)
    standings: dict[str, Standing] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    engaged: set[tuple[str, str]] = field(default_factory=set)

    def standing(self, user_id: str | None) -> Standing:
        return self.standings[user_id] if user_id is not None else NOBODY

    def thread_engaged(self, place: SessionPlace, thread_id: str | None) -> bool:
        """Whether the session of this place was addressed in the thread before."""
        session_id = self.sessions.get(place.route_key)
        return session_id is not None and thread_id is not None and (session_id, thread_id) in self.engaged


def selective_patterns(connection: Connection, chat: Chat) -> set[str]:
    """The engage patterns of a chat's wirings that have to be run."""
    wired = connection.execute(_PATTERNS, _named(chat))
    return {pattern for mode, pattern in wired if pattern is not None and is_selective(mode, pattern)}


def gather(
    connection: Connection, chat: Chat, events: Sequence[PendingEvent], supports_threads: bool | None, now_ms: int
) -> Facts:
    """The facts for these events. Remembers their senders, and registers the chat when one of them mentions the bot."""
    user_ids = _remember_senders(connection, chat[0], events, now_ms)
    facts = Facts(_chat_facts(connection, chat, supports_threads))
    if facts.chat is None:
        facts.chat = _register(connection, chat, events, supports_threads, now_ms)
    if facts.chat is None:
        return facts
    for *wiring, host_id in connection.execute(_WIRINGS, {"chat_id": facts.chat.id}):
        facts.wirings.append(WiringFacts(*wiring))
        if host_id is not None:
            facts.hosts[facts.wirings[-1].agent_group_id] = host_id
    if facts.wirings:
        facts.standings = standings(connection, user_ids) if user_ids else {}
        _load_sessions(connection, facts, {thread_of(event.thread_id, supports_threads) for event in events})
    return facts


def _remember_senders(
    connection: Connection, channel_type: str, events: Sequence[PendingEvent], now_ms: int
) -> set[str]:
    seen: dict[str, Identity] = {}
    for event in events:
        sender = event.content.sender
        user_id = sender.user_id(channel_type)
        if user_id is not None:
            earlier = seen.get(user_id)
            name = sender.display_name or (earlier.display_name if earlier else None)
            seen[user_id] = Identity(user_id, channel_type, name)
    if seen:
        remember(connection, seen, now_ms)
    return set(seen)


def _chat_facts(connection: Connection, chat: Chat, supports_threads: bool | None) -> ChatFacts | None:
    row = connection.execute(_CHAT, _named(chat)).one_or_none()
    if row is None:
        return None
    return ChatFacts(row.id, bool(row.is_group), row.unknown_sender_policy, row.denied_at is not None, supports_threads)


def _register(
    connection: Connection, chat: Chat, events: Sequence[PendingEvent], supports_threads: bool | None, now_ms: int
) -> ChatFacts | None:
    """Register an unknown chat at the first message that mentions the bot; None when none does."""
    first = next((event for event in events if event.is_mention and not event.content.is_empty), None)
    if first is None:
        return None
    values = {
        **_named(chat),
        "id": new_id("mg"),
        "is_group": int(bool(first.is_group)),
        "unknown_sender_policy": REGISTERED_POLICY,
        "created_at": now_ms,
    }
    # An operator may be registering it right now: then that one counts.
    connection.execute(insert_missing(connection, ChatRow), values)
    return _chat_facts(connection, chat, supports_threads)


def _load_sessions(connection: Connection, facts: Facts, threads: set[str | None]) -> None:
    chat = facts.chat
    assert chat is not None
    keys = set()
    for wiring in facts.wirings:
        mode = effective_mode(wiring.session_mode, supports_threads=chat.supports_threads, is_group=chat.is_group)
        keys |= {session_place(mode, wiring.agent_group_id, chat.id, thread).route_key for thread in threads}
    facts.sessions = {row.route_key: row.id for row in connection.execute(_SESSIONS, {"route_keys": list(keys)})}
    if facts.sessions and any(wiring.engage_mode == "mention-sticky" for wiring in facts.wirings):
        asked = {"session_ids": list(facts.sessions.values()), "chat_id": chat.id}
        facts.engaged = {(row.session_id, row.thread_id) for row in connection.execute(_ENGAGED, asked)}


def _named(chat: Chat) -> dict[str, str]:
    return {"channel_type": chat[0], "platform_id": chat[1]}
