"""The present state in the form of a state file. Fields that are empty or as they are by default are left out."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup, ContainerConfig
from nanotasks.central.users import Member, User, UserRole
from nanotasks.domain.group_config import FIELDS, JSON_FIELDS

_CONFIG_DEFAULTS: dict[str, Any] = {
    "cli_scope": "group",
    "skills": "all",
    "mcp_servers": {},
    "packages_apt": [],
    "packages_npm": [],
    "additional_mounts": [],
}


def export(session: Session) -> dict[str, list[dict[str, Any]]]:
    """The state of the whole installation, section by section."""
    folders = dict(session.execute(select(AgentGroup.id, AgentGroup.folder)).all())
    places = {chat.id: place_of(chat) for chat in session.scalars(select(Chat))}
    return {
        "groups": [_group(session, group) for group in session.scalars(select(AgentGroup).order_by(AgentGroup.folder))],
        "chats": [_chat(chat) for chat in session.scalars(select(Chat).order_by(Chat.channel_type, Chat.platform_id))],
        "users": [
            _without_empty({"user": user.id, "display_name": user.display_name, "timezone": user.timezone})
            for user in session.scalars(select(User).order_by(User.id))
        ],
        "roles": [
            _without_empty({"user": role.user_id, "role": role.role, "group": folders.get(role.agent_group_id or "")})
            for role in session.scalars(select(UserRole).order_by(UserRole.user_id, UserRole.id))
        ],
        "members": sorted(
            ({"user": m.user_id, "group": folders[m.agent_group_id]} for m in session.scalars(select(Member))),
            key=lambda row: (row["user"], row["group"]),
        ),
        "destinations": sorted(
            filter(None, (_destination(row, folders, places) for row in session.scalars(select(Destination)))),
            key=lambda row: (row["group"], row["name"]),
        ),
        "wirings": sorted(
            (
                {"chat": places[w.messaging_group_id], "group": folders[w.agent_group_id]}
                | _without_empty(fields_of_wiring(w))
                for w in session.scalars(select(Wiring))
            ),
            key=lambda row: (row["chat"], row["group"]),
        ),
    }


def place_of(chat: Chat) -> str:
    """`channel:platform_id`."""
    return f"{chat.channel_type}:{chat.platform_id}"


def config_of(session: Session, group: AgentGroup) -> dict[str, Any]:
    """Every field of a group's configuration, with defaults where there is no row."""
    config = session.get(ContainerConfig, group.id)
    if config is None:
        return {name: _CONFIG_DEFAULTS.get(name) for name in FIELDS}
    values = {name: getattr(config, name) for name in FIELDS}
    return {name: json.loads(value) if name in JSON_FIELDS else value for name, value in values.items()}


def fields_of_chat(chat: Chat) -> dict[str, Any]:
    """What a state file may say about a chat."""
    return {
        "name": chat.name,
        "is_group": bool(chat.is_group),
        "unknown_sender_policy": chat.unknown_sender_policy,
        "denied": chat.denied_at is not None,
    }


def fields_of_wiring(wiring: Wiring) -> dict[str, Any]:
    """What a state file may say about a wiring."""
    return {
        "engage_mode": wiring.engage_mode,
        "engage_pattern": wiring.engage_pattern,
        "sender_scope": wiring.sender_scope,
        "ignored_message_policy": wiring.ignored_message_policy,
        "session_mode": wiring.session_mode,
        "priority": wiring.priority,
    }


def _group(session: Session, group: AgentGroup) -> dict[str, Any]:
    changed = {n: v for n, v in config_of(session, group).items() if v != _CONFIG_DEFAULTS.get(n)}
    # Where it lives is no part of what it is: the file is for other installations too, whose hosts have other ids.
    row: dict[str, Any] = _without_empty({"folder": group.folder, "name": group.name, "timezone": group.timezone})
    return row | ({"config": changed} if changed else {})


def _chat(chat: Chat) -> dict[str, Any]:
    fields = fields_of_chat(chat)
    if not fields["denied"]:
        del fields["denied"]
    return {"chat": place_of(chat)} | _without_empty(fields)


def _destination(row: Destination, folders: dict[str, str], places: dict[str, str]) -> dict[str, Any] | None:
    kind, known = ("agent", folders) if row.target_type == "agent" else ("chat", places)
    # What it led to may be gone; there is nothing left to describe then.
    if row.target_id not in known:
        return None
    return {"group": folders[row.agent_group_id], "name": row.local_name, kind: known[row.target_id]}


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
