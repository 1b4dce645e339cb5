"""Destinations: the names under which an agent reaches chats and other agents. A row is the permission to send.

Every function works in the caller's transaction. Afterwards the caller projects the group's destinations into
its sessions, so that a running agent sees them.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from nanotasks.central.chats import Chat
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup
from nanotasks.clock import now_ms
from nanotasks.domain.names import chat_local_name, normalize_name
from nanotasks.errors import ConflictError, InvalidError


def create_destination(session: Session, group: AgentGroup, name: str, target: Chat | AgentGroup) -> Destination:
    """Let a group send to a chat or to another group under a name. Raises `ConflictError` when the name is taken."""
    _require_free(session, group, name)
    target_type = _require_target(group, target)
    destination = Destination(
        agent_group_id=group.id,
        local_name=name,
        target_type=target_type,
        target_id=target.id,
        created_at=now_ms(),
    )
    session.add(destination)
    session.flush()
    return destination


def ensure_chat_destination(session: Session, group: AgentGroup, chat: Chat, created_at: int) -> Destination:
    """The group's destination for a chat that it is wired to, made when there is none."""
    found = session.scalars(
        select(Destination)
        .where(
            Destination.agent_group_id == group.id,
            Destination.target_type == "channel",
            Destination.target_id == chat.id,
        )
        .limit(1)
    ).first()
    if found is not None:
        return found
    taken = set(session.scalars(select(Destination.local_name).where(Destination.agent_group_id == group.id)))
    destination = Destination(
        agent_group_id=group.id,
        local_name=chat_local_name(chat.name, chat.channel_type, chat.id, taken),
        target_type="channel",
        target_id=chat.id,
        created_at=created_at,
    )
    session.add(destination)
    session.flush()
    return destination


def change_destination(
    session: Session,
    group: AgentGroup,
    destination: Destination,
    *,
    name: str | None = None,
    target: Chat | AgentGroup | None = None,
) -> Destination:
    """Give a destination another name or another target, and return it under its new name."""
    if target is not None:
        destination.target_type = _require_target(group, target)
        destination.target_id = target.id
        session.flush()
    if name is not None and name != destination.local_name:
        _require_free(session, group, name)
        here = (Destination.agent_group_id == group.id) & (Destination.local_name == destination.local_name)
        session.execute(update(Destination).where(here).values(local_name=name))
        session.expunge(destination)
        renamed = session.get(Destination, (group.id, name))
        assert renamed is not None
        return renamed
    return destination


def groups_that_reach(session: Session, target_type: str, target_id: str) -> list[str]:
    """The ids of the agent groups that have a destination leading there."""
    query = select(Destination.agent_group_id).where(
        Destination.target_type == target_type, Destination.target_id == target_id
    )
    return sorted(set(session.scalars(query)))


def _require_free(session: Session, group: AgentGroup, name: str) -> None:
    if name != normalize_name(name):
        raise InvalidError(
            f"{name!r} cannot be a destination's name.",
            why="Agents write it, so it has only a-z, 0-9 and -.",
            fix=f"Use {normalize_name(name)}.",
        )
    if session.get(Destination, (group.id, name)) is not None:
        raise ConflictError(f"{group.folder} has a destination {name} already.", fix="Choose another name.")


def _require_target(group: AgentGroup, target: Chat | AgentGroup) -> str:
    if isinstance(target, Chat):
        return "channel"
    if target.id == group.id:
        raise InvalidError("An agent needs no destination to reach itself.")
    return "agent"
