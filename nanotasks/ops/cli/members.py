"""`nanotasks members`: who may talk to an agent group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.ops.cli.arguments import NONE, GroupRef, OfGroup, OfUser, UserRef, require_some
from nanotasks.ops.cli.central import reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.users import Member

app = App(help="Members. One is a known person of an agent group: no stranger to it in any chat.")
COLUMNS = ("user", "group", "added_by", "added_at")

AddedBy = Annotated[str | None, typer.Option("--added-by", metavar="USER", help="Who vouches for them, or none.")]


def register(root: typer.Typer) -> None:
    """Add `members` to the command line."""
    root.add_typer(app, name="members")


@app.command("list")
def list_members(user: OfUser = None, group: OfGroup = None) -> None:
    """List the members."""
    from sqlalchemy import select

    from nanotasks.central.users import Member
    from nanotasks.ops import references

    query = select(Member).order_by(Member.agent_group_id, Member.user_id)
    with reading() as session:
        if user is not None:
            query = query.where(Member.user_id == references.user(session, user).id)
        if group is not None:
            query = query.where(Member.agent_group_id == references.group(session, group).id)
        rows = [view(session, member) for member in session.scalars(query)]
    show_list(rows, COLUMNS, empty="There are no members. Add one with `nanotasks members create USER GROUP`.")


@app.command("show")
def show_member(user: UserRef, group: GroupRef) -> None:
    """Show one membership."""
    from nanotasks.ops import references

    with reading() as session:
        row = view(session, references.member(session, user, group))
    show_one(row)


@app.command("create")
def create_member(user: UserRef, group: GroupRef, added_by: AddedBy = None) -> None:
    """Let a user talk to an agent group."""
    from nanotasks.ops import references
    from nanotasks.people.admin import add_member

    with writing() as tx:
        person, agent = references.user(tx.session, user), references.group(tx.session, group)
        giver = _giver(tx.session, added_by)
        row = view(tx.session, add_member(tx.session, person, agent, added_by=giver))
        tx.audit("members.create", _key(row))
    show_result(row, "user", f"{row['user']} may talk to {row['group']}.")


@app.command("update")
def update_member(user: UserRef, group: GroupRef, added_by: AddedBy = None) -> None:
    """Change who vouches for a member."""
    from nanotasks.ops import references

    require_some({"added_by": added_by} if added_by is not None else {}, "--added-by file:alice")
    with writing() as tx:
        member = references.member(tx.session, user, group)
        member.added_by = _giver(tx.session, added_by)
        row = view(tx.session, member)
        tx.audit("members.update", _key(row), {"added_by": row["added_by"]})
    show_result(row, "user", f"Changed the membership of {row['user']} in {row['group']}.")


@app.command("delete")
def delete_member(user: UserRef, group: GroupRef) -> None:
    """Make a user a stranger to an agent group again. Roles are not touched."""
    from nanotasks.ops import references

    with writing() as tx:
        member = references.member(tx.session, user, group)
        row = view(tx.session, member)
        tx.session.delete(member)
        tx.audit("members.delete", _key(row))
    show_result({"deleted": _key(row)}, "deleted", f"{row['user']} is no longer a member of {row['group']}.")


def view(session: Session, member: Member) -> dict[str, Any]:
    """A membership as it is printed."""
    from nanotasks.central.groups import AgentGroup

    return {
        "user": member.user_id,
        "group": session.get_one(AgentGroup, member.agent_group_id).folder,
        "group_id": member.agent_group_id,
        "added_by": member.added_by,
        "added_at": member.added_at,
    }


def _giver(session: Session, user: str | None) -> str | None:
    from nanotasks.ops import references

    return None if user is None or user == NONE else references.user(session, user).id


def _key(row: dict[str, Any]) -> str:
    return f"{row['user']} {row['group']}"
