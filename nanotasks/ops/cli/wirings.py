"""`nanotasks wirings`: which agent group listens in which chat, and when it engages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import ENGAGE_MODES, IGNORED_POLICIES, SENDER_SCOPES, SESSION_MODES
from nanotasks.ops.cli.arguments import ChatRef, GroupRef, OfChat, OfGroup, choice, given, require_some
from nanotasks.ops.cli.central import after_destinations, reading, writing
from nanotasks.ops.cli.output import say, show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.chats import Chat, Wiring
    from nanotasks.central.groups import AgentGroup

app = App(help="Wirings. One lets an agent group listen in a chat, and says when it engages.")
COLUMNS = (
    "chat",
    "group",
    "engage_mode=ENGAGES",
    "engage_pattern=PATTERN",
    "sender_scope=FROM",
    "ignored_message_policy=IGNORED",
    "session_mode=SESSIONS",
    "id",
)

WiringRef = Annotated[
    str, typer.Argument(metavar="WIRING|CHAT", help="A wiring's id, or its chat when GROUP is given too.")
]
WithGroup = Annotated[str | None, typer.Argument(metavar="GROUP", help="The wiring's agent group.")]
EngageMode = Annotated[
    str | None,
    choice("--engage-mode", ENGAGE_MODES, "On messages that match, that mention it, or also in threads it joined."),
]
Pattern = Annotated[
    str | None,
    typer.Option("--engage-pattern", metavar="REGEX", help="For the mode pattern; . fits every message."),
]
SenderScope = Annotated[
    str | None,
    choice("--sender-scope", SENDER_SCOPES, "Who may engage it: all whom the chat lets in, or known people."),
]
Ignored = Annotated[
    str | None,
    choice(
        "--ignored-message-policy", IGNORED_POLICIES, "Messages it does not engage on: forgotten, or kept as context."
    ),
]
SessionMode = Annotated[
    str | None, choice("--session-mode", SESSION_MODES, "One session per chat, per thread, or one for all its chats.")
]
Priority = Annotated[int | None, typer.Option("--priority", metavar="N", help="Higher is asked earlier; 0 by default.")]


def register(root: typer.Typer) -> None:
    """Add `wirings` to the command line."""
    root.add_typer(app, name="wirings")


@app.command("list")
def list_wirings(chat: OfChat = None, group: OfGroup = None) -> None:
    """List the wirings."""
    from sqlalchemy import select

    from nanotasks.central.chats import Chat, Wiring
    from nanotasks.central.groups import AgentGroup
    from nanotasks.ops import references

    query = (
        select(Wiring, Chat, AgentGroup)
        .join(Chat, Chat.id == Wiring.messaging_group_id)
        .join(AgentGroup, AgentGroup.id == Wiring.agent_group_id)
        .order_by(Chat.channel_type, Chat.platform_id, Wiring.priority.desc(), Wiring.id)
    )
    with reading() as session:
        if chat is not None:
            query = query.where(Chat.id == references.chat(session, chat).id)
        if group is not None:
            query = query.where(AgentGroup.id == references.group(session, group).id)
        rows = [view(*row) for row in session.execute(query)]
    show_list(rows, COLUMNS, empty="There are no wirings. Make one with `nanotasks wirings create CHAT GROUP`.")


@app.command("show")
def show_wiring(wiring: WiringRef, group: WithGroup = None) -> None:
    """Show one wiring."""
    from nanotasks.ops import references

    with reading() as session:
        row = _view_of(session, references.wiring(session, wiring, group))
    show_one(row)


@app.command("create")
def create_wiring(
    chat: ChatRef,
    group: GroupRef,
    engage_mode: EngageMode = None,
    engage_pattern: Pattern = None,
    sender_scope: SenderScope = None,
    ignored_message_policy: Ignored = None,
    session_mode: SessionMode = None,
    priority: Priority = None,
) -> None:
    """Let an agent group listen in a chat, and answer there.

    Unless told otherwise it engages when it is mentioned, for everybody whom the chat lets in, forgets the other
    messages, and has one session per chat. A pattern alone means the mode pattern.
    """
    from nanotasks.agents.wirings import create_wiring as create
    from nanotasks.ops import references

    options = _options(locals())
    with writing() as tx:
        here, agent = references.chat(tx.session, chat), references.group(tx.session, group)
        wiring = create(tx.session, here, agent, options)
        tx.audit("wirings.create", wiring.id, {"chat": references.place_of(here), "group": agent.folder, **options})
        row = view(wiring, here, agent)
    after_destinations([agent.id])
    show_result(row, "id", f"{row['group']} listens in {row['chat']}.")


@app.command("update")
def update_wiring(
    wiring: WiringRef,
    group: WithGroup = None,
    engage_mode: EngageMode = None,
    engage_pattern: Pattern = None,
    sender_scope: SenderScope = None,
    ignored_message_policy: Ignored = None,
    session_mode: SessionMode = None,
    priority: Priority = None,
) -> None:
    """Change a wiring. A mode other than pattern forgets the pattern."""
    from nanotasks.agents.wirings import change_wiring
    from nanotasks.ops import references

    changes = _options(locals())
    require_some(changes, "--engage-mode mention")
    with writing() as tx:
        found = references.wiring(tx.session, wiring, group)
        change_wiring(tx.session, found, changes)
        tx.audit("wirings.update", found.id, changes)
        row = _view_of(tx.session, found)
    show_result(row, "id", f"Changed how {row['group']} listens in {row['chat']}.")


@app.command("delete")
def delete_wiring(wiring: WiringRef, group: WithGroup = None) -> None:
    """Stop listening. The sessions stay, and so does the destination: the agent may still send to the chat."""
    from nanotasks.agents.wirings import delete_wiring as delete
    from nanotasks.ops import references

    with writing() as tx:
        found = references.wiring(tx.session, wiring, group)
        row = _view_of(tx.session, found)
        delete(tx.session, found)
        tx.audit("wirings.delete", row["id"], {"chat": row["chat"], "group": row["group"]})
    show_result({"deleted": row["id"]}, "deleted", f"{row['group']} no longer listens in {row['chat']}.")
    say(f"It may still send there; `nanotasks destinations list --group {row['group']}` shows under which name.")


def view(wiring: Wiring, chat: Chat, group: AgentGroup) -> dict[str, Any]:
    """A wiring as it is printed."""
    return {
        "id": wiring.id,
        "chat": f"{chat.channel_type}:{chat.platform_id}",
        "chat_id": chat.id,
        "group": group.folder,
        "group_id": group.id,
        "engage_mode": wiring.engage_mode,
        "engage_pattern": wiring.engage_pattern,
        "sender_scope": wiring.sender_scope,
        "ignored_message_policy": wiring.ignored_message_policy,
        "session_mode": wiring.session_mode,
        "priority": wiring.priority,
        "created_at": wiring.created_at,
    }


def _view_of(session: Session, wiring: Wiring) -> dict[str, Any]:
    from nanotasks.central.chats import Chat
    from nanotasks.central.groups import AgentGroup

    return view(
        wiring,
        session.get_one(Chat, wiring.messaging_group_id),
        session.get_one(AgentGroup, wiring.agent_group_id),
    )


def _options(values: dict[str, Any]) -> dict[str, Any]:
    fields = ("engage_mode", "engage_pattern", "sender_scope", "ignored_message_policy", "session_mode", "priority")
    return given({name: values[name] for name in fields})
