"""`nanotasks chats`: conversation places of the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import UNKNOWN_SENDER_POLICIES
from nanotasks.ops.cli.arguments import Cascade, ChatRef, choice, given, require_some
from nanotasks.ops.cli.central import after_chats, after_deleted_sessions, after_destinations, reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from nanotasks.central.chats import Chat

app = App(help="Chats. One is a conversation place on one channel: channel:platform_id, such as file:family.")
COLUMNS = ("chat", "name", "is_group=GROUP", "unknown_sender_policy=STRANGERS", "denied_at", "id", "created_at")

Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it, or none.")]
IsGroup = Annotated[
    bool | None,
    typer.Option("--is-group/--no-is-group", help="Whether several people talk there; a direct chat is none."),
]
Policy = Annotated[
    str | None,
    choice(
        "--unknown-sender-policy",
        UNKNOWN_SENDER_POLICIES,
        "What becomes of strangers: dropped, dropped until somebody approves, or let in.",
    ),
]


def register(root: typer.Typer) -> None:
    """Add `chats` to the command line."""
    root.add_typer(app, name="chats")


@app.command("list")
def list_chats(
    channel: Annotated[str | None, typer.Option("--channel", metavar="NAME", help="Only of this channel.")] = None,
) -> None:
    """List the chats."""
    from sqlalchemy import select

    from nanotasks.central.chats import Chat

    query = select(Chat).order_by(Chat.channel_type, Chat.platform_id)
    if channel is not None:
        query = query.where(Chat.channel_type == channel)
    with reading() as session:
        rows = [view(chat) for chat in session.scalars(query)]
    show_list(rows, COLUMNS, empty="There are no chats. Make one with `nanotasks chats create file:family`.")


@app.command("show")
def show_chat(chat: ChatRef) -> None:
    """Show one chat."""
    from nanotasks.ops import references

    with reading() as session:
        row = view(references.chat(session, chat))
    show_one(row)


@app.command("create")
def create_chat(
    place: Annotated[
        str, typer.Argument(metavar="CHANNEL:PLATFORM_ID", help="The place, exactly as its channel reports it.")
    ],
    name: Name = None,
    is_group: IsGroup = None,
    unknown_sender_policy: Policy = None,
) -> None:
    """Register a chat. Unless told otherwise it is a direct chat in which strangers are dropped (strict)."""
    from nanotasks.agents.chats import create_chat as create
    from nanotasks.agents.chats import split_place

    channel_type, platform_id = split_place(place)
    fields = given({"name": name, "is_group": is_group, "unknown_sender_policy": unknown_sender_policy}, ["name"])
    with writing() as tx:
        chat = create(tx.session, channel_type, platform_id, **fields)
        tx.audit("chats.create", chat.id, {"chat": place, **fields})
        row = view(chat)
    after_chats([place])
    show_result(row, "id", f"Registered the chat {row['chat']}.")


@app.command("update")
def update_chat(
    chat: ChatRef,
    name: Name = None,
    is_group: IsGroup = None,
    unknown_sender_policy: Policy = None,
    denied: Annotated[
        bool | None, typer.Option("--denied/--no-denied", help="Ignore it while no agent is wired to it.")
    ] = None,
) -> None:
    """Change a chat. The word none empties a field."""
    from nanotasks.agents.chats import change_chat
    from nanotasks.clock import now_ms
    from nanotasks.ops import references

    changes = given({"name": name, "is_group": is_group, "unknown_sender_policy": unknown_sender_policy}, ["name"])
    if denied is not None:
        changes["denied_at"] = now_ms() if denied else None
    require_some(changes, "--unknown-sender-policy public")
    with writing() as tx:
        found = references.chat(tx.session, chat)
        change_chat(tx.session, found, changes)
        tx.audit("chats.update", found.id, changes)
        row = view(found)
    show_result(row, "id", f"Changed the chat {row['chat']}.")


@app.command("delete")
def delete_chat(chat: ChatRef, cascade: Cascade = False) -> None:
    """Delete a chat; with --cascade its wirings, destinations, sessions and their folders too."""
    from nanotasks.agents.chats import delete_chat as delete
    from nanotasks.agents.destinations import groups_that_reach
    from nanotasks.ops import references

    with writing() as tx:
        found = references.chat(tx.session, chat)
        groups = groups_that_reach(tx.session, "channel", found.id)
        sessions = delete(tx.session, found, cascade=cascade)
        place = references.place_of(found)
        tx.audit("chats.delete", found.id, {"chat": place, "sessions": [one.id for one in sessions]})
    after_deleted_sessions(sessions)
    after_destinations(groups)
    show_result({"deleted": found.id}, "deleted", f"Deleted the chat {place}.")


def view(chat: Chat) -> dict[str, Any]:
    """A chat as it is printed."""
    return {
        "id": chat.id,
        "chat": f"{chat.channel_type}:{chat.platform_id}",
        "channel_type": chat.channel_type,
        "platform_id": chat.platform_id,
        "name": chat.name,
        "is_group": bool(chat.is_group),
        "unknown_sender_policy": chat.unknown_sender_policy,
        "denied_at": chat.denied_at,
        "created_at": chat.created_at,
    }
