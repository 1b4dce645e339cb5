"""`nanotasks deliveries`: messages on their way out, and what became of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import DELIVERY_STATES, ERROR_CLASSES
from nanotasks.ops.cli.arguments import Limit, OfGroup, SessionRef, choice, moment_option, require_some, rows_wanted
from nanotasks.ops.cli.central import reading, ring, writing
from nanotasks.ops.cli.output import say_if_cut, show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.deliveries import Delivery, DeliveryAttempt

app = App(help="Deliveries. One is a message of an agent on its way to its destination, with every try at it.")
COLUMNS = ("id", "state", "group", "to", "attempts=TRIES", "next_attempt_at=NEXT", "error_text=ERROR", "created_at")

DeliveryRef = Annotated[str, typer.Argument(metavar="DELIVERY", help="A delivery: its id or the beginning of it.")]


def register(root: typer.Typer) -> None:
    """Add `deliveries` to the command line."""
    root.add_typer(app, name="deliveries")


@app.command("list")
def list_deliveries(
    state: Annotated[
        list[str] | None, choice("--state", DELIVERY_STATES, "Only in this state; may be given several times.")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")] = None,
    group: OfGroup = None,
    error_class: Annotated[str | None, choice("--class", ERROR_CLASSES, "Only that failed so.")] = None,
    since: Annotated[int | None, moment_option("--since", "Only entered since then")] = None,
    until: Annotated[int | None, moment_option("--until", "Only entered before")] = None,
    limit: Limit = None,
) -> None:
    """List the deliveries, the newest first."""
    from sqlalchemy import select

    from nanotasks.central.deliveries import Delivery
    from nanotasks.central.groups import AgentGroup
    from nanotasks.ops import references

    most = rows_wanted(limit)
    query = select(Delivery, AgentGroup.folder).join(AgentGroup, AgentGroup.id == Delivery.agent_group_id)
    query = query.order_by(Delivery.created_at.desc(), Delivery.seq.desc(), Delivery.id.desc())
    if state:
        query = query.where(Delivery.state.in_(state))
    if error_class is not None:
        query = query.where(Delivery.error_class == error_class)
    if since is not None:
        query = query.where(Delivery.created_at >= since)
    if until is not None:
        query = query.where(Delivery.created_at < until)
    with reading() as central:
        if session is not None:
            query = query.where(Delivery.session_id == references.agent_session(central, session).id)
        if group is not None:
            query = query.where(Delivery.agent_group_id == references.group(central, group).id)
        rows = [view(found, folder) for found, folder in central.execute(query.limit(most + 1 if most else None))]
    show_list(rows[: most or None], COLUMNS, empty="There are no such deliveries.")
    say_if_cut(rows, most)


@app.command("show")
def show_delivery(delivery: DeliveryRef) -> None:
    """Show one delivery with its content and every attempt."""
    from nanotasks.ops import references

    with reading() as session:
        row = _whole(session, references.delivery(session, delivery))
    show_one(row)


@app.command("create")
def create_delivery(
    session: SessionRef,
    text: Annotated[str, typer.Option("--text", metavar="TEXT", help="What to say.")],
) -> None:
    """Say something in a session's chat, in the agent's place. The agent does not learn of it."""
    from nanotasks.deliver.operator import say
    from nanotasks.ops import references

    with writing() as tx:
        made = say(tx.session, references.agent_session(tx.session, session), text)
        tx.audit("deliveries.create", made.id, {"session": made.session_id, "text": text})
        row = view(made, references.folder_of(tx.session, made.agent_group_id))
    ring("deliver", row["session"], row["host"])
    show_result(row, "id", f"It goes to {row['to']} now.")


@app.command("update")
def update_delivery(
    delivery: DeliveryRef,
    state: Annotated[
        str | None, choice("--state", ("retry", "discard"), "Try it again at once, or give it up and tell the agent.")
    ] = None,
) -> None:
    """Retry or discard a delivery.

    One that is dead, held, parked or retrying can be tried again; where the outcome is unknown it may arrive twice.
    One that is not finished can be given up, and its lane goes on.
    """
    from nanotasks.deliver.operator import discard, retry
    from nanotasks.ops import references

    require_some({"state": state} if state else {}, "--state retry")
    with writing() as tx:
        found = references.delivery(tx.session, delivery)
        before = found.state
        (retry if state == "retry" else discard)(tx.session, found)
        tx.audit(f"deliveries.{state}", found.id, {"from": before})
        row = view(found, references.folder_of(tx.session, found.agent_group_id))
        again = found.attempts + 1 if found.state == "retrying" else None
    if again is None:
        ring("deliver", row["session"], row["host"])
    else:
        ring("attempt", row["id"], row["host"], again)
    show_result(row, "id", f"It was {before} and is {row['state']} now.")


@app.command("delete")
def delete_delivery(delivery: DeliveryRef) -> None:
    """Forget a finished delivery and its attempts."""
    from nanotasks.deliver.operator import delete_delivery as delete
    from nanotasks.ops import references

    with writing() as tx:
        found = references.delivery(tx.session, delivery)
        delete(tx.session, found)
        tx.audit("deliveries.delete", found.id, {"session": found.session_id, "state": found.state})
    show_result({"deleted": found.id}, "deleted", f"Forgot the delivery {found.id}.")


def view(delivery: Delivery, folder: str) -> dict[str, Any]:
    """A delivery as it is listed."""
    return {
        "id": delivery.id,
        "state": delivery.state,
        "session": delivery.session_id,
        "group": folder,
        "group_id": delivery.agent_group_id,
        "host": delivery.host_id,
        "to": _destination(delivery),
        "thread": delivery.thread_id,
        "kind": delivery.kind,
        "message_out_id": delivery.message_out_id,
        "seq": delivery.seq,
        "in_reply_to": delivery.in_reply_to,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at if delivery.finished_at is None else None,
        "error_class": delivery.error_class,
        "error_text": delivery.error_text,
        "platform_message_id": delivery.platform_message_id,
        "created_at": delivery.created_at,
        "finished_at": delivery.finished_at,
        "projected_at": delivery.projected_at,
    }


def _whole(session: Session, delivery: Delivery) -> dict[str, Any]:
    from sqlalchemy import select

    from nanotasks.central.deliveries import DeliveryAttempt
    from nanotasks.ops import references

    tries = session.scalars(
        select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == delivery.id).order_by(DeliveryAttempt.number)
    )
    folder = references.folder_of(session, delivery.agent_group_id)
    return view(delivery, folder) | {"content": _content(delivery), "tries": [_attempt(one) for one in tries]}


def _content(delivery: Delivery) -> Any:
    try:
        return json.loads(delivery.content)
    except ValueError:
        return delivery.content


def _attempt(attempt: DeliveryAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome,
        "error_class": attempt.error_class,
        "error_text": attempt.error_text,
        "worker": attempt.worker,
        "task_id": attempt.task_id,
        "started_at": attempt.started_at,
        "finished_at": attempt.finished_at,
    }


def _destination(delivery: Delivery) -> str | None:
    if delivery.channel_type is None:
        return delivery.platform_id
    return f"{delivery.channel_type}:{delivery.platform_id or ''}"
