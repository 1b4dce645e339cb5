"""`nanotasks intake`: messages on their way in, and recorded messages to feed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import EVENT_STATES
from nanotasks.errors import NanotasksError, NotFoundError
from nanotasks.ops.cli.arguments import Limit, OfChat, choice, rows_wanted
from nanotasks.ops.cli.central import open_central, reading, ring, writing
from nanotasks.ops.cli.output import is_for_people, say, say_if_cut, show_list, show_one, show_result
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.events import Drop, InboundEvent

app = App(help="The intake: messages on their way in, and what became of them.")
COLUMNS = ("id", "state", "chat", "sender", "text", "reason", "received_at")

EventRef = Annotated[str, typer.Argument(metavar="EVENT", help="An event: its id or the beginning of it.")]


def register(root: typer.Typer) -> None:
    """Add `intake` to the command line."""
    root.add_typer(app, name="intake")


@app.command("list")
def list_events(
    state: Annotated[str | None, choice("--state", EVENT_STATES, "Only in this state.")] = None,
    chat: OfChat = None,
    limit: Limit = None,
) -> None:
    """List the accepted messages, the newest first, with the reason why one was dropped or is dead."""
    from sqlalchemy import exists, or_, select

    from nanotasks.central.events import Drop, InboundEvent, InboundRoute
    from nanotasks.ops import references

    most = rows_wanted(limit)
    query = select(InboundEvent, Drop).outerjoin(Drop, Drop.event_id == InboundEvent.id)
    query = query.order_by(InboundEvent.received_at.desc(), InboundEvent.accept_order.desc())
    if state == "dead":
        unanswered = exists().where(InboundRoute.event_id == InboundEvent.id, InboundRoute.state == "dead")
        query = query.where(or_(InboundEvent.state == state, unanswered))
    elif state is not None:
        query = query.where(InboundEvent.state == state)
    with reading() as session:
        if chat is not None:
            place = references.place(session, chat)
            query = query.where(InboundEvent.channel_type == place[0], InboundEvent.platform_id == place[1])
        rows = [view(event, drop) for event, drop in session.execute(query.limit(most + 1 if most else None))]
    show_list(rows[: most or None], COLUMNS, empty="There are no such messages.")
    say_if_cut(rows, most)


@app.command("show")
def show_event(event: EventRef) -> None:
    """Show one accepted message with its content and its routes to sessions."""
    from nanotasks.ops import references

    with reading() as session:
        row = _whole(session, references.event(session, event))
    show_one(row)


@app.command("retry")
def retry_event(event: EventRef) -> None:
    """Try a message once more that no agent got, or that ended without an answer.

    One that was dropped or is dead is routed by the rules as they are now: a stranger's message, for example, once the
    stranger is a member. One that an agent got and did not answer is given to it again, without its files.
    """
    from nanotasks.intake.operator import ask_again, route_again
    from nanotasks.ops import references

    with writing() as tx:
        found = references.event(tx.session, event)
        before = found.state
        again = ask_again(tx.session, found) if before == "routed" else []
        if not again:
            route_again(tx.session, found)
        tx.audit("intake.retry", found.id, {"from": before, "sessions": again})
        row = view(found, None)
        hosts = [(one, references.host_of(tx.session, one)) for one in again]
    for session_id, host_id in hosts:
        ring("append", session_id, host_id)
    if not again:
        ring("route", found.channel_type, found.platform_id)
    told = f"It is given to {len(again)} of its agents again." if again else f"It was {before} and is routed again now."
    show_result(row, "id", told)


@app.command("replay")
def replay(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="One message per line; - is standard input.")],
) -> None:
    """Accept the messages of a JSONL file, by default into the channel file.

    Each line is an object such as {"id": "1", "platform_id": "family", "text": "hello", "sender_id": "alice"}. It
    needs no gateway; workers route what was accepted, now or when they run next. Doing it twice is harmless, since
    a known message is not accepted again. Exits 1 when a line cannot be used; the others are accepted all the same.
    """
    from nanotasks.ops.replay import replay_file

    problems: list[dict[str, Any]] = []

    def note(line: int, error: NanotasksError) -> None:
        problems.append({"line": line, **error.as_json()})
        say(f"line {line}: {error}")

    config = settings()
    open_central(config)
    try:
        report = replay_file(config, Path("/dev/stdin" if file == "-" else file), on_problem=note)
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {file}.") from None
    counts = {
        "lines": report.lines,
        "accepted": report.accepted,
        "duplicates": report.duplicates,
        "failed": report.failed,
    }
    # To a person they were told already, as they came.
    show_one(counts if is_for_people() else counts | {"problems": problems})
    if report.failed:
        raise typer.Exit(1)


def view(event: InboundEvent, drop: Drop | None) -> dict[str, Any]:
    """An accepted message as it is listed."""
    content = _content(event)
    fields = content if isinstance(content, dict) else {"text": content}
    return {
        "id": event.id,
        "state": event.state,
        "chat": f"{event.channel_type}:{event.platform_id}",
        "thread": event.thread_id,
        "message_id": event.platform_message_id,
        "sender": fields.get("senderName") or fields.get("sender") or fields.get("senderId"),
        "user": drop.user_id if drop else None,
        "text": fields.get("text"),
        "is_mention": bool(event.is_mention),
        "reason": drop.reason if drop else event.error,
        "tries": event.tries,
        "received_at": event.received_at,
        "routed_at": event.routed_at,
    }


def _whole(session: Session, event: InboundEvent) -> dict[str, Any]:
    from sqlalchemy import select

    from nanotasks.central.events import Drop, InboundRoute
    from nanotasks.central.groups import AgentGroup

    drop = session.scalars(select(Drop).where(Drop.event_id == event.id)).one_or_none()
    routes = session.execute(
        select(InboundRoute, AgentGroup.folder)
        .join(AgentGroup, AgentGroup.id == InboundRoute.agent_group_id)
        .where(InboundRoute.event_id == event.id)
        .order_by(InboundRoute.id)
    )
    return view(event, drop) | {
        "content": _content(event),
        "routes": [
            {
                "group": folder,
                "session": route.session_id,
                "trigger": bool(route.trigger),
                "state": route.state,
                "error": route.error,
                "created_at": route.created_at,
                "finished_at": route.finished_at,
            }
            for route, folder in routes
        ],
    }


def _content(event: InboundEvent) -> Any:
    try:
        return json.loads(event.content)
    except ValueError:
        return event.content
