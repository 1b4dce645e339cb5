"""Wirings: an agent group listens in a chat. A wiring always comes with the destination that lets it answer there.

Every function works in the caller's transaction. An engage pattern belongs to the mode `pattern`: it is asked for
there, checked when it is set, and forgotten when the mode changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.agents.destinations import ensure_chat_destination
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.groups import AgentGroup
from nanotasks.clock import now_ms
from nanotasks.domain.pattern import compile_pattern
from nanotasks.domain.vocabulary import ENGAGE_MODES, IGNORED_POLICIES, SENDER_SCOPES, SESSION_MODES
from nanotasks.errors import ConflictError, InvalidError
from nanotasks.ids import new_id

VOCABULARY = {
    "engage_mode": ENGAGE_MODES,
    "sender_scope": SENDER_SCOPES,
    "ignored_message_policy": IGNORED_POLICIES,
    "session_mode": SESSION_MODES,
}


def create_wiring(session: Session, chat: Chat, group: AgentGroup, options: Mapping[str, Any]) -> Wiring:
    """Let a group listen in a chat. `options` are the wiring's fields; a pattern alone means the mode `pattern`.

    Raises `ConflictError` when the two are wired already, `InvalidError` for options that do not fit together.
    """
    known = session.scalars(
        select(Wiring).where(Wiring.messaging_group_id == chat.id, Wiring.agent_group_id == group.id)
    ).one_or_none()
    if known is not None:
        raise ConflictError(
            f"{group.folder} listens in {chat.channel_type}:{chat.platform_id} already.",
            fix=f"Change it with `nanotasks wirings update {known.id}`.",
        )
    implied = {"engage_mode": "pattern"} if options.get("engage_pattern") is not None else {}
    wiring = Wiring(
        id=new_id("mga"),
        messaging_group_id=chat.id,
        agent_group_id=group.id,
        engage_mode="mention",
        engage_pattern=None,
        created_at=now_ms(),
    )
    _set(wiring, {**implied, **options})
    session.add(wiring)
    session.flush()
    ensure_chat_destination(session, group, chat, wiring.created_at)
    return wiring


def change_wiring(session: Session, wiring: Wiring, changes: Mapping[str, Any]) -> None:
    """Change fields of a wiring. Raises `InvalidError` when the result does not fit together."""
    _set(wiring, changes)
    session.flush()


def delete_wiring(session: Session, wiring: Wiring) -> None:
    """Stop listening. Sessions stay, and so does the destination: the agent may still send there."""
    session.delete(wiring)
    session.flush()


def _set(wiring: Wiring, changes: Mapping[str, Any]) -> None:
    for field, words in VOCABULARY.items():
        if field in changes and changes[field] not in words:
            raise InvalidError(f"{changes[field]!r} is no {field}.", fix=f"Use one of {', '.join(words)}.")
    mode = changes.get("engage_mode", wiring.engage_mode)
    pattern = changes.get("engage_pattern", wiring.engage_pattern if mode == "pattern" else None)
    _require_fitting(mode, pattern)
    for field, value in {**changes, "engage_pattern": pattern}.items():
        setattr(wiring, field, value)


def _require_fitting(mode: str, pattern: str | None) -> None:
    if mode == "pattern" and not pattern:
        raise InvalidError(
            "The engage mode `pattern` needs a pattern.",
            fix="Use the pattern . to engage on every message, or the mode `mention`.",
        )
    if mode != "pattern" and pattern is not None:
        raise InvalidError(
            f"A pattern means nothing in the engage mode `{mode}`.", fix="Use the mode `pattern`, or leave it out."
        )
    if pattern is not None:
        compile_pattern(pattern)
