"""Users, roles and memberships by an operator's hand.

Every function works in the caller's transaction. Nobody needs a role on this computer: whoever can run the
command line owns the installation. Roles count in the chats, and for approvals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nanotasks.agents import dependants
from nanotasks.central.groups import AgentGroup
from nanotasks.central.users import Member, User, UserRole
from nanotasks.clock import now_ms
from nanotasks.domain.recurrence import ZoneError, check_zone
from nanotasks.domain.vocabulary import ROLES
from nanotasks.errors import ConflictError, InvalidError


def change_user(user: User, changes: Mapping[str, Any]) -> None:
    """Change `display_name` or `timezone`. Raises `InvalidError` for a zone that is none."""
    zone = changes.get("timezone")
    if zone is not None:
        require_zone(zone)
    for name, value in changes.items():
        setattr(user, name, value)


def require_zone(name: str) -> None:
    """Raise `InvalidError` unless this is the name of a time zone."""
    try:
        check_zone(name)
    except ZoneError as error:
        raise InvalidError(str(error)) from error


def create_user(
    session: Session, user_id: str, *, display_name: str | None = None, timezone: str | None = None
) -> User:
    """Enter a user as `<channel>:<handle>`, the form in which a channel reports the sender. Raises `ConflictError`."""
    channel, colon, handle = user_id.partition(":")
    if not (channel and colon and handle):
        raise InvalidError(
            f"{user_id!r} is not a user's id.", fix="Write it as channel:handle, for example file:alice."
        )
    if session.get(User, user_id) is not None:
        raise ConflictError(f"The user {user_id} is there already.")
    user = User(id=user_id, kind=channel, created_at=now_ms())
    change_user(user, {"display_name": display_name, "timezone": timezone})
    session.add(user)
    session.flush()
    return user


def delete_user(session: Session, user: User, *, cascade: bool = False) -> None:
    """Delete a user, with roles and memberships when `cascade`; else `ConflictError` names them."""
    kinds = dependants.of_user(user.id)
    if not cascade:
        dependants.require_none(session, f"The user {user.id}", kinds)
    dependants.remove(session, kinds)
    dependants.forget_grants_by(session, user.id)
    session.execute(delete(User).where(User.id == user.id))


def grant_role(
    session: Session, user: User, role: str, group: AgentGroup | None = None, *, granted_by: str | None = None
) -> UserRole:
    """Give a role, in one agent group or everywhere. Raises `ConflictError` when the user has exactly that one."""
    _require_role(session, user.id, role, group)
    grant = UserRole(
        user_id=user.id,
        role=role,
        agent_group_id=group.id if group else None,
        granted_by=granted_by,
        granted_at=now_ms(),
    )
    session.add(grant)
    session.flush()
    return grant


def change_role(session: Session, grant: UserRole, role: str, group: AgentGroup | None) -> None:
    """Make a grant another role, or another group's. Raises like `grant_role`."""
    if (role, group.id if group else None) != (grant.role, grant.agent_group_id):
        _require_role(session, grant.user_id, role, group)
    grant.role = role
    grant.agent_group_id = group.id if group else None
    session.flush()


def add_member(session: Session, user: User, group: AgentGroup, *, added_by: str | None = None) -> Member:
    """Let a user talk to an agent group. Raises `ConflictError` when that is so already."""
    if session.get(Member, (user.id, group.id)) is not None:
        raise ConflictError(f"{user.id} is a member of {group.folder} already.")
    member = Member(user_id=user.id, agent_group_id=group.id, added_by=added_by, added_at=now_ms())
    session.add(member)
    session.flush()
    return member


def _require_role(session: Session, user_id: str, role: str, group: AgentGroup | None) -> None:
    if role not in ROLES:
        raise InvalidError(f"{role!r} is no role.", fix=f"Use one of {', '.join(ROLES)}.")
    if role == "owner" and group is not None:
        raise InvalidError(
            "An owner is owner of everything.", fix=f"Leave the group out, or make them admin of {group.folder}."
        )
    scope = group.id if group else None
    same = select(UserRole.id).where(
        UserRole.user_id == user_id, UserRole.role == role, UserRole.agent_group_id.is_not_distinct_from(scope)
    )
    if session.scalars(same).first() is not None:
        where = f" of {group.folder}" if group else ""
        raise ConflictError(f"{user_id} is {role}{where} already.")
