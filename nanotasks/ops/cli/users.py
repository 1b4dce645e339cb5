"""`nanotasks users`: people on a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.ops.cli.arguments import Cascade, UserRef, given, require_some
from nanotasks.ops.cli.central import reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from nanotasks.central.users import User

app = App(help="Users. One is a person on one channel: channel:handle, such as file:alice.")
COLUMNS = ("id", "display_name", "channel", "created_at")

NULLABLE = ("display_name", "timezone")

DisplayName = Annotated[str | None, typer.Option("--display-name", metavar="NAME", help="The person's name, or none.")]

Zone = Annotated[
    str | None, typer.Option("--timezone", metavar="ZONE", help="IANA zone for what they schedule, or none.")
]


def register(root: typer.Typer) -> None:
    """Add `users` to the command line."""
    root.add_typer(app, name="users")


@app.command("list")
def list_users(
    channel: Annotated[str | None, typer.Option("--channel", metavar="NAME", help="Only of this channel.")] = None,
) -> None:
    """List the users."""
    from sqlalchemy import select

    from nanotasks.central.users import User

    query = select(User).order_by(User.id)
    if channel is not None:
        query = query.where(User.kind == channel)
    with reading() as session:
        rows = [view(user) for user in session.scalars(query)]
    show_list(rows, COLUMNS, empty="There are no users. They appear when they write, or by `nanotasks users create`.")


@app.command("show")
def show_user(user: UserRef) -> None:
    """Show one user with roles and memberships."""
    from sqlalchemy import select

    from nanotasks.central.groups import AgentGroup
    from nanotasks.central.users import Member, UserRole
    from nanotasks.ops import references

    with reading() as session:
        found = references.user(session, user)
        folders = dict(session.execute(select(AgentGroup.id, AgentGroup.folder)).all())
        roles = session.execute(select(UserRole.role, UserRole.agent_group_id).where(UserRole.user_id == found.id))
        groups = session.scalars(select(Member.agent_group_id).where(Member.user_id == found.id))
        row = view(found) | {
            "roles": [{"role": role, "group": folders[group] if group else None} for role, group in roles],
            "member_of": sorted(folders[group] for group in groups),
        }
    show_one(row)


@app.command("create")
def create_user(
    user: Annotated[str, typer.Argument(metavar="CHANNEL:HANDLE", help="As the channel reports the sender.")],
    display_name: DisplayName = None,
    timezone: Zone = None,
) -> None:
    """Enter a user, so that roles and memberships can be given before they write."""
    from nanotasks.people.admin import create_user as create

    fields = given({"display_name": display_name, "timezone": timezone}, NULLABLE)
    with writing() as tx:
        made = create(tx.session, user, **fields)
        tx.audit("users.create", made.id, fields)
        row = view(made)
    show_result(row, "id", f"Entered the user {row['id']}.")


@app.command("update")
def update_user(user: UserRef, display_name: DisplayName = None, timezone: Zone = None) -> None:
    """Change a user's name or time zone. The word none empties either."""
    from nanotasks.ops import references
    from nanotasks.people.admin import change_user

    changes = given({"display_name": display_name, "timezone": timezone}, NULLABLE)
    require_some(changes, "--display-name Alice")
    with writing() as tx:
        found = references.user(tx.session, user)
        change_user(found, changes)
        tx.audit("users.update", found.id, changes)
        row = view(found)
    show_result(row, "id", f"Changed the user {row['id']}.")


@app.command("delete")
def delete_user(user: UserRef, cascade: Cascade = False) -> None:
    """Delete a user; with --cascade the roles and memberships too. One who writes again is entered again."""
    from nanotasks.ops import references
    from nanotasks.people.admin import delete_user as delete

    with writing() as tx:
        found = references.user(tx.session, user)
        delete(tx.session, found, cascade=cascade)
        tx.audit("users.delete", found.id)
    show_result({"deleted": found.id}, "deleted", f"Deleted the user {found.id}.")


def view(user: User) -> dict[str, Any]:
    """A user as it is printed."""
    return {
        "id": user.id,
        "channel": user.kind,
        "display_name": user.display_name,
        "timezone": user.timezone,
        "created_at": user.created_at,
    }
