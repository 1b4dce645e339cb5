"""Agent groups: made whole (row and configuration), changed, and deleted only when nothing depends on them.

Every function works in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nanotasks.agents import dependants
from nanotasks.agents.container_config import require_provider
from nanotasks.agents.moving import Moved, lock_host, move
from nanotasks.agents.sessions import delete_session
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup, ContainerConfig
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.group_config import JSON_FIELDS, require_valid
from nanotasks.domain.names import group_folder, is_group_folder
from nanotasks.errors import ConflictError, InvalidError, NotFoundError
from nanotasks.ids import new_id
from nanotasks.people.admin import require_zone


def create_group(
    session: Session,
    name: str,
    *,
    folder: str | None = None,
    host_id: str | None = None,
    timezone: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> AgentGroup:
    """Make an agent group with its configuration; a folder that is not given comes from the name.

    Raises `InvalidError` for an empty name, a bad folder or configuration, `ConflictError` for a taken folder,
    `NotFoundError` for an unknown host.
    """
    _require_name(name)
    folder = _free_folder(session, name, folder)
    _require_host(session, host_id)
    group = AgentGroup(id=new_id("ag"), name=name, folder=folder, host_id=host_id, created_at=now_ms())
    change_group(session, group, {"timezone": timezone})
    session.add(group)
    session.flush()
    session.add(ContainerConfig(agent_group_id=group.id, updated_at=group.created_at, **_stored(config or {})))
    session.flush()
    return group


def change_group(session: Session, group: AgentGroup, changes: Mapping[str, Any]) -> Moved | None:
    """Change `name`, `timezone` or `host_id`. The folder stays for good: session files and memory live below it.

    Returns the move of a group that has sessions; its signals are to be rung after the commit.
    """
    moved = None
    if "name" in changes:
        _require_name(changes["name"])
        group.name = changes["name"]
    if "timezone" in changes:
        if changes["timezone"] is not None:
            require_zone(changes["timezone"])
        group.timezone = changes["timezone"]
    if "host_id" in changes and changes["host_id"] != group.host_id:
        moved = _change_host(session, group, changes["host_id"])
    session.flush()
    return moved


def group_config(session: Session, group: AgentGroup) -> ContainerConfig:
    """The group's configuration, made with defaults when it is missing."""
    found = session.get(ContainerConfig, group.id)
    if found is None:
        found = ContainerConfig(agent_group_id=group.id, updated_at=now_ms())
        session.add(found)
        session.flush()
        session.refresh(found)
    return found


def change_config(session: Session, group: AgentGroup, changes: Mapping[str, Any]) -> None:
    """Change fields of the group's configuration; a running agent sees them at its next start.

    Sessions whose start is put off are tried again at once: the change may be what mends it.
    """
    config = group_config(session, group)
    for field, value in _stored(changes).items():
        setattr(config, field, value)
    config.updated_at = now_ms()
    session.execute(update(AgentSession).where(AgentSession.agent_group_id == group.id).values(wake_retry_at=None))
    session.flush()


def delete_group(session: Session, group: AgentGroup, *, cascade: bool = False) -> list[AgentSession]:
    """Delete a group, with everything that depends on it when `cascade`; else `ConflictError` names what does.

    Returns the sessions that went with it; their folders, and the group's own, are the caller's to remove.
    """
    kinds = dependants.of_group(group.id)
    if not cascade:
        dependants.require_none(session, f"The agent group {group.folder}", kinds)
    sessions = list(session.scalars(select(AgentSession).where(AgentSession.agent_group_id == group.id)))
    for one in sessions:
        delete_session(session, one, cascade=True)
    dependants.remove(session, kinds)
    for part in (
        delete(Destination).where(Destination.agent_group_id == group.id),
        delete(ContainerConfig).where(ContainerConfig.agent_group_id == group.id),
        delete(AgentGroup).where(AgentGroup.id == group.id),
    ):
        session.execute(part)
    return sessions


def _free_folder(session: Session, name: str, folder: str | None) -> str:
    taken = {*session.scalars(select(AgentGroup.folder)), "global"}
    if folder is None:
        made = group_folder(name, taken)
        if not is_group_folder(made):
            raise InvalidError(f"No folder can be made of the name {name[:40]!r}.", fix="Give one with --folder.")
        return made
    if not is_group_folder(folder):
        raise InvalidError(
            f"{folder!r} cannot be a folder.",
            why="A folder has 1 to 64 of A-Z, a-z, 0-9, _ and -, begins with a letter or digit, and is not `global`.",
            fix=f"Use {group_folder(folder[:50], taken)!r}, for example.",
        )
    if folder in taken:
        raise ConflictError(
            f"The folder {folder} belongs to another agent group.", fix=f"Use {group_folder(folder[:50], taken)}."
        )
    return folder


def _stored(config: Mapping[str, Any]) -> dict[str, Any]:
    require_valid(config)
    require_provider(config.get("provider"))
    return {field: dumps(value) if field in JSON_FIELDS else value for field, value in config.items()}


def _require_name(name: str) -> None:
    if not name.strip():
        raise InvalidError("An agent group needs a name.", fix="Give it one that people recognise, such as Andy.")


def _require_host(session: Session, host_id: str | None) -> None:
    if host_id is not None and session.get(Host, host_id) is None:
        known = ", ".join(session.scalars(select(Host.id).order_by(Host.id))) or "none yet"
        raise NotFoundError(
            f"There is no host {host_id}.", why=f"Known hosts: {known}.", fix="A host appears when its worker starts."
        )


def _change_host(session: Session, group: AgentGroup, host_id: str | None) -> Moved | None:
    """Where its files are there too, or it has none yet. Raises `ConflictError` elsewhere."""
    _require_host(session, host_id)
    session.flush()
    leaving = lock_host(session, group.host_id) if group.host_id is not None else None
    sessions = select(AgentSession.id).where(AgentSession.agent_group_id == group.id).limit(1)
    if leaving is None or session.scalars(sessions).first() is None:
        group.host_id = host_id
        group.epoch += 1
        return None
    taking = session.get(Host, host_id) if host_id is not None else None
    moved = None
    if taking is not None and taking.volume is not None and taking.volume == leaving.volume:
        if taking.state == "down":
            raise ConflictError(
                f"{group.folder} cannot move to {taking.id}, which is down.",
                why="Its agents would not be started there.",
                fix="Start its worker first, or choose another host.",
            )
        moved = move(session, group, taking.id, "an operator moved it")
    if moved is None:
        raise ConflictError(
            f"{group.folder} cannot move away from {leaving.id}.",
            why="Its sessions are files on that host.",
            fix="Delete its sessions first, or leave it where it is. Hosts with one NANOTASKS_SHARED_DIR can take"
            " groups from each other.",
        )
    session.refresh(group)
    return moved
