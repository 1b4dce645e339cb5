"""`nanotasks destinations`: the names under which an agent reaches chats and other agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.errors import UsageError
from nanotasks.ops.cli.arguments import GroupRef, OfGroup, require_some
from nanotasks.ops.cli.central import after_destinations, reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.chats import Chat
    from nanotasks.central.destinations import Destination
    from nanotasks.central.groups import AgentGroup

app = App(help="Destinations. One is the permission of an agent to send to a chat or to another agent, by a name.")
COLUMNS = ("group", "name", "type", "target", "created_at")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The name the agent uses: a-z, 0-9 and -.")]
ToChat = Annotated[str | None, typer.Option("--chat", metavar="CHAT", help="It leads to this chat.")]
ToAgent = Annotated[str | None, typer.Option("--agent", metavar="GROUP", help="It leads to this agent group.")]


def register(root: typer.Typer) -> None:
    """Add `destinations` to the command line."""
    root.add_typer(app, name="destinations")


@app.command("list")
def list_destinations(group: OfGroup = None) -> None:
    """List the destinations."""
    from sqlalchemy import select

    from nanotasks.central.destinations import Destination
    from nanotasks.ops import references

    query = select(Destination).order_by(Destination.agent_group_id, Destination.local_name)
    with reading() as session:
        if group is not None:
            query = query.where(Destination.agent_group_id == references.group(session, group).id)
        rows = [view(session, destination) for destination in session.scalars(query)]
    show_list(rows, COLUMNS, empty="There are no destinations. A wiring makes one, and so does `destinations create`.")


@app.command("show")
def show_destination(group: GroupRef, name: Name) -> None:
    """Show one destination."""
    from nanotasks.ops import references

    with reading() as session:
        row = view(session, references.destination(session, group, name))
    show_one(row)


@app.command("create")
def create_destination(group: GroupRef, name: Name, chat: ToChat = None, agent: ToAgent = None) -> None:
    """Let an agent send to a chat or to another agent. It answers where it was asked without one."""
    from nanotasks.agents.destinations import create_destination as create
    from nanotasks.ops import references

    with writing() as tx:
        owner = references.group(tx.session, group)
        target = _target(tx.session, chat, agent)
        if target is None:
            raise UsageError("A destination leads somewhere.", fix="Give --chat CHAT or --agent GROUP.")
        row = view(tx.session, create(tx.session, owner, name, target))
        tx.audit("destinations.create", _key(row), {"target": row["target"]})
    after_destinations([owner.id])
    show_result(row, "name", f"{row['group']} may send to {row['target']} as {row['name']}.")


@app.command("update")
def update_destination(
    group: GroupRef,
    name: Name,
    to_name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Call it so from now on.")] = None,
    chat: ToChat = None,
    agent: ToAgent = None,
) -> None:
    """Rename a destination, or let it lead elsewhere."""
    from nanotasks.agents.destinations import change_destination
    from nanotasks.ops import references

    with writing() as tx:
        owner = references.group(tx.session, group)
        destination = references.destination(tx.session, group, name)
        target = _target(tx.session, chat, agent)
        require_some({"name": to_name} if to_name else {"target": target} if target else {}, "--name family")
        row = view(tx.session, change_destination(tx.session, owner, destination, name=to_name, target=target))
        tx.audit("destinations.update", f"{owner.folder} {name}", {"name": row["name"], "target": row["target"]})
    after_destinations([owner.id])
    show_result(row, "name", f"{row['group']} may send to {row['target']} as {row['name']}.")


@app.command("delete")
def delete_destination(group: GroupRef, name: Name) -> None:
    """Take the permission to send away, at once. Answers where the agent was asked are not touched."""
    from nanotasks.ops import references

    with writing() as tx:
        destination = references.destination(tx.session, group, name)
        row = view(tx.session, destination)
        tx.session.delete(destination)
        tx.audit("destinations.delete", _key(row), {"target": row["target"]})
    after_destinations([row["group_id"]])
    show_result({"deleted": _key(row)}, "deleted", f"{row['group']} may no longer send to {row['target']}.")


def view(session: Session, destination: Destination) -> dict[str, Any]:
    """A destination as it is printed. `target` is null when what it led to is gone."""
    from nanotasks.central.chats import Chat
    from nanotasks.central.groups import AgentGroup
    from nanotasks.ops import references

    if destination.target_type == "agent":
        agent = session.get(AgentGroup, destination.target_id)
        target = agent.folder if agent else None
    else:
        chat = session.get(Chat, destination.target_id)
        target = references.place_of(chat) if chat else None
    return {
        "group": session.get_one(AgentGroup, destination.agent_group_id).folder,
        "group_id": destination.agent_group_id,
        "name": destination.local_name,
        "type": destination.target_type,
        "target": target,
        "target_id": destination.target_id,
        "created_at": destination.created_at,
    }


def _target(session: Session, chat: str | None, agent: str | None) -> Chat | AgentGroup | None:
    from nanotasks.ops import references

    if chat is not None and agent is not None:
        raise UsageError("A destination leads to one place.", fix="Give either --chat or --agent.")
    if chat is not None:
        return references.chat(session, chat)
    return references.group(session, agent) if agent is not None else None


def _key(row: dict[str, Any]) -> str:
    return f"{row['group']} {row['name']}"
