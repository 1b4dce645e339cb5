"""`nanotasks roles`: owners and admins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import ROLES
from nanotasks.ops.cli.arguments import NONE, OfGroup, OfUser, UserRef, choice, one_of_argument, require_some
from nanotasks.ops.cli.central import reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.users import UserRole

app = App(help="Roles. An owner may do everything; an admin everything, or everything in one agent group.")
COLUMNS = ("id", "user", "role", "group", "granted_by", "granted_at")

RoleRef = Annotated[str, typer.Argument(metavar="ID|USER", help="A role's number, or its user when ROLE is given too.")]
RoleWord = Annotated[str | None, one_of_argument("ROLE", ROLES, "owner or admin.")]
InGroup = Annotated[str | None, typer.Argument(metavar="GROUP", help="The agent group it is for; all when left out.")]


def register(root: typer.Typer) -> None:
    """Add `roles` to the command line."""
    root.add_typer(app, name="roles")


@app.command("list")
def list_roles(user: OfUser = None, group: OfGroup = None) -> None:
    """List the roles."""
    from sqlalchemy import select

    from nanotasks.central.users import UserRole
    from nanotasks.ops import references

    query = select(UserRole).order_by(UserRole.granted_at, UserRole.id)
    with reading() as session:
        if user is not None:
            query = query.where(UserRole.user_id == references.user(session, user).id)
        if group is not None:
            query = query.where(UserRole.agent_group_id == references.group(session, group).id)
        rows = [view(session, grant) for grant in session.scalars(query)]
    show_list(rows, COLUMNS, empty="There are no roles. Give one with `nanotasks roles create USER owner`.")


@app.command("show")
def show_role(role: RoleRef, word: RoleWord = None, group: InGroup = None) -> None:
    """Show one role, by its number or by USER ROLE [GROUP]."""
    from nanotasks.ops import references

    with reading() as session:
        row = view(session, references.role(session, role, word, group))
    show_one(row)


@app.command("create")
def create_role(
    user: UserRef,
    role: Annotated[str, one_of_argument("ROLE", ROLES, "owner or admin.")],
    group: InGroup = None,
    granted_by: Annotated[
        str | None, typer.Option("--granted-by", metavar="USER", help="The user who gives it, for the record.")
    ] = None,
) -> None:
    """Give a user a role."""
    from nanotasks.ops import references
    from nanotasks.people.admin import grant_role

    with writing() as tx:
        person = references.user(tx.session, user)
        agent = references.group(tx.session, group) if group is not None else None
        giver = references.user(tx.session, granted_by).id if granted_by is not None else None
        grant = grant_role(tx.session, person, role, agent, granted_by=giver)
        row = view(tx.session, grant)
        tx.audit("roles.create", str(grant.id), {"user": person.id, "role": role, "group": row["group"]})
    show_result(row, "id", f"{_sentence(row)}.")


@app.command("update")
def update_role(
    role: RoleRef,
    word: RoleWord = None,
    group: InGroup = None,
    to_role: Annotated[str | None, choice("--role", ROLES, "Make it this role.")] = None,
    to_group: Annotated[
        str | None, typer.Option("--group", metavar="GROUP", help="Make it for this agent group; none: for all.")
    ] = None,
) -> None:
    """Make a role another one, or another group's."""
    from nanotasks.ops import references
    from nanotasks.people.admin import change_role

    require_some({key: value for key, value in (("r", to_role), ("g", to_group)) if value}, "--role admin")
    with writing() as tx:
        grant = references.role(tx.session, role, word, group)
        scope = references.group_or_none(tx.session, grant.agent_group_id)
        if to_group is not None:
            scope = None if to_group == NONE else references.group(tx.session, to_group)
        change_role(tx.session, grant, to_role or grant.role, scope)
        row = view(tx.session, grant)
        tx.audit("roles.update", str(grant.id), {"user": row["user"], "role": row["role"], "group": row["group"]})
    show_result(row, "id", f"{_sentence(row)}.")


@app.command("delete")
def delete_role(role: RoleRef, word: RoleWord = None, group: InGroup = None) -> None:
    """Take a role away, by its number or by USER ROLE [GROUP]."""
    from nanotasks.ops import references

    with writing() as tx:
        grant = references.role(tx.session, role, word, group)
        row = view(tx.session, grant)
        tx.session.delete(grant)
        tx.audit("roles.delete", str(row["id"]), {"user": row["user"], "role": row["role"], "group": row["group"]})
    show_result({"deleted": row["id"]}, "deleted", f"No longer: {_sentence(row)}.")


def view(session: Session, grant: UserRole) -> dict[str, Any]:
    """A role as it is printed."""
    from nanotasks.ops import references

    group = references.group_or_none(session, grant.agent_group_id)
    return {
        "id": grant.id,
        "user": grant.user_id,
        "role": grant.role,
        "group": group.folder if group else None,
        "group_id": grant.agent_group_id,
        "granted_by": grant.granted_by,
        "granted_at": grant.granted_at,
    }


def _sentence(row: dict[str, Any]) -> str:
    return f"{row['user']} is {row['role']} of {row['group'] or 'everything'}"
