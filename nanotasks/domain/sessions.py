"""Which session a message belongs to (NanoClaw 2's modes).

    shared         one session of the agent in the chat
    per-thread     one for each thread of the chat; without a thread, the chat's shared one
    agent-shared   one for the agent, whatever the chat; it is never another kind's session

Where the channel has threads they are the unit of conversation, so a group is always per-thread there, unless
its agent is agent-shared. A direct chat keeps its mode: its threads collapse into one session.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class SessionPlace:
    """Where a session is found or made: its thread, and the key that only one active session has."""

    thread_id: str | None
    route_key: str


def thread_of(thread_id: str | None, supports_threads: bool | None) -> str | None:
    """The thread to go by: none where the channel has no threads, unchanged where the channel is unknown (None)."""
    return None if supports_threads is False else (thread_id or None)


def effective_mode(mode: str, *, supports_threads: bool | None, is_group: bool) -> str:
    """The session mode of a wiring in this chat."""
    return "per-thread" if supports_threads and is_group and mode != "agent-shared" else mode


def session_place(mode: str, agent_group_id: str, chat_id: str | None, thread_id: str | None) -> SessionPlace:
    """The session of an effective mode; a message without a chat (from another agent) has the agent's own."""
    if mode == "agent-shared" or chat_id is None:
        return SessionPlace(None, _key("agent", agent_group_id))
    if mode == "per-thread" and thread_id:
        return SessionPlace(thread_id, _key("thread", agent_group_id, chat_id, thread_id))
    return SessionPlace(None, _key("chat", agent_group_id, chat_id))


def _key(*parts: str) -> str:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
