"""`nanotasks sessions`: the conversations of the agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import SESSION_MODES, SESSION_STATUSES
from nanotasks.ops.cli.arguments import (
    Cascade,
    GroupRef,
    Limit,
    OfChat,
    OfGroup,
    SessionRef,
    choice,
    require_some,
    rows_wanted,
)
from nanotasks.ops.cli.central import after_deleted_sessions, reading, ring, writing
from nanotasks.ops.cli.output import say_if_cut, show_list, show_one, show_result
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.sessions import AgentSession

app = App(help="Sessions. One is the conversation of an agent group in a chat, or in one thread of it.")
COLUMNS = ("id", "group", "chat", "thread", "status", "agent", "last_active_at=ACTIVE", "next_due_at=DUE", "trouble")


def register(root: typer.Typer) -> None:
    """Add `sessions` to the command line."""
    root.add_typer(app, name="sessions")


@app.command("list")
def list_sessions(
    group: OfGroup = None,
    chat: OfChat = None,
    status: Annotated[str | None, choice("--status", SESSION_STATUSES, "Only with this status.")] = None,
    troubled: Annotated[
        bool, typer.Option("--troubled", help="Only those with a file or an agent that makes trouble.")
    ] = False,
    limit: Limit = None,
) -> None:
    """List the sessions, the last active first."""
    from sqlalchemy import or_, select

    from nanotasks.central.sessions import AgentSession
    from nanotasks.ops import references

    most = rows_wanted(limit)
    query = select(AgentSession).order_by(AgentSession.last_active.desc().nulls_last(), AgentSession.id.desc())
    if status is not None:
        query = query.where(AgentSession.status == status)
    if troubled:
        query = query.where(or_(AgentSession.append_error.is_not(None), AgentSession.wake_error.is_not(None)))
    with reading() as session:
        if group is not None:
            query = query.where(AgentSession.agent_group_id == references.group(session, group).id)
        if chat is not None:
            query = query.where(AgentSession.messaging_group_id == references.chat(session, chat).id)
        found = session.scalars(query.limit(most + 1 if most else None)).all()
        rows = [view(session, one) for one in found]
    show_list(rows[: most or None], COLUMNS, empty="There are no such sessions. A message to a wired chat begins one.")
    say_if_cut(rows, most)


@app.command("show")
def show_session(session: SessionRef) -> None:
    """Show one session: its files, its agent, its routes and deliveries by state."""
    from nanotasks.ops import references

    with reading() as central:
        row = _whole(central, references.agent_session(central, session))
    show_one(row)


@app.command("create")
def create_session(
    group: GroupRef,
    chat: Annotated[
        str | None, typer.Argument(metavar="CHAT", help="The chat; the agent's own session when left out.")
    ] = None,
    thread: Annotated[str | None, typer.Option("--thread", metavar="ID", help="The thread in that chat.")] = None,
    mode: Annotated[
        str | None, choice("--session-mode", SESSION_MODES, "The wiring's mode when it is not given, else shared.")
    ] = None,
) -> None:
    """Make a session before a message does, for example to send a message first.

    Then `nanotasks deliveries create SESSION --text …` speaks in its chat.
    """
    from nanotasks.agents.sessions import create_session as create
    from nanotasks.agents.sessions import place_of
    from nanotasks.ops import references

    with writing() as tx:
        agent = references.group(tx.session, group)
        here = references.chat(tx.session, chat) if chat is not None else None
        made = create(tx.session, agent, here, place_of(tx.session, settings(), agent, here, thread, mode))
        tx.audit("sessions.create", made.id, {"group": agent.folder, "chat": chat, "thread": made.thread_id})
        row = view(tx.session, made)
    show_result(row, "id", f"Made a session of {row['group']} in {row['chat'] or 'no chat'}.")


@app.command("update")
def update_session(
    session: SessionRef,
    status: Annotated[str | None, choice("--status", SESSION_STATUSES, "Close it, or open it again.")] = None,
) -> None:
    """Close a session, or open it again.

    A closed one keeps its files and history; its agent is stopped, and the next message begins a new session.
    Messages that it has not answered are given up, and their chat is told.
    """
    from nanotasks.agents.sessions import set_status
    from nanotasks.ops import references

    require_some({"status": status} if status else {}, "--status closed")
    with writing() as tx:
        found = references.agent_session(tx.session, session)
        set_status(tx.session, found, str(status))
        tx.audit("sessions.update", found.id, {"status": status})
        row = view(tx.session, found)
    ring("wake", row["id"], row["host"])
    ring("deliver", row["id"], row["host"])
    show_result(row, "id", f"The session is {status}.")


@app.command("delete")
def delete_session(session: SessionRef, cascade: Cascade = False) -> None:
    """Delete a session and its folder; with --cascade its routes, deliveries and instances too.

    Refused while its agent runs.
    """
    from nanotasks.agents.sessions import delete_session as delete
    from nanotasks.ops import references

    with writing() as tx:
        found = references.agent_session(tx.session, session)
        delete(tx.session, found, cascade=cascade)
        tx.audit("sessions.delete", found.id, {"group_id": found.agent_group_id})
    after_deleted_sessions([found])
    show_result({"deleted": found.id}, "deleted", f"Deleted the session {found.id}.")


def view(session: Session, found: AgentSession) -> dict[str, Any]:
    """A session as it is listed."""
    from nanotasks.central.chats import Chat
    from nanotasks.central.groups import AgentGroup
    from nanotasks.ops import references

    group = session.get_one(AgentGroup, found.agent_group_id)
    chat = session.get(Chat, found.messaging_group_id) if found.messaging_group_id else None
    return {
        "id": found.id,
        "group": group.folder,
        "group_id": group.id,
        "chat": references.place_of(chat) if chat else None,
        "chat_id": found.messaging_group_id,
        "thread": found.thread_id,
        "host": group.host_id,
        "status": found.status,
        "agent": found.container_status,
        "last_active_at": found.last_active,
        "trouble": found.append_error or found.wake_error,
        # 0 stands for: at once.
        "next_due_at": found.last_active or found.created_at if found.next_due_at == 0 else found.next_due_at,
        "created_at": found.created_at,
    }


def _whole(session: Session, found: AgentSession) -> dict[str, Any]:
    from sqlalchemy import func, select

    from nanotasks.central.deliveries import Delivery
    from nanotasks.central.events import InboundRoute
    from nanotasks.central.hosts import Instance
    from nanotasks.session.layout import SessionFolder

    def by_state(column: Any, session_id: Any) -> dict[str, int]:
        query = select(column, func.count()).where(session_id == found.id).group_by(column).order_by(column)
        return dict(session.execute(query).all())

    last = session.scalars(
        select(Instance).where(Instance.session_id == found.id).order_by(Instance.started_at.desc()).limit(1)
    ).first()
    return view(session, found) | {
        "folder": str(SessionFolder.of(settings().files_dir, found.agent_group_id, found.id).root),
        "routes": by_state(InboundRoute.state, InboundRoute.session_id),
        "deliveries": by_state(Delivery.state, Delivery.session_id),
        "append_error": found.append_error,
        "wake_failures": found.wake_failures,
        "wake_error": found.wake_error,
        "wake_retry_at": found.wake_retry_at,
        "last_instance": {
            "id": last.id,
            "host": last.host_id,
            "runtime": last.runtime,
            "isolated": bool(last.isolated),
            "started_at": last.started_at,
            "ended_at": last.ended_at,
            "end_reason": last.end_reason,
            "exit_code": last.exit_code,
        }
        if last
        else None,
    }
