"""An event that cannot be routed: tried again, and then set aside as dead, with a word to its chat."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from nanotasks import logs
from nanotasks.central.changes import changed
from nanotasks.central.chats import Chat as ChatRow
from nanotasks.central.events import InboundEvent
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Address
from nanotasks.deliver.host_messages import enter_host_message
from nanotasks.domain.delivery import shorten
from nanotasks.intake.pending import Chat, PendingEvent
from nanotasks.signals import task_at_work

_log = logs.get("intake")

_RETRY_MS = 1000
_WINDOW_MS = 60_000
_NOTICE = "Your message could not be processed and was set aside. The operator can look at it and try it again."


@dataclass(frozen=True)
class SetAside:
    """`dead`: the chat goes on without the event. `told`: the session, and its agent group, that says so."""

    dead: bool
    told: tuple[str, str] | None = None


@dataclass(frozen=True)
class Attempt:
    """A routing that failed: in which worker and when (ms on the database's clock), and how many there may be."""

    worker: str
    now: int
    max_tries: int


def set_aside(connection: Connection, chat: Chat, event: PendingEvent, error: Exception, attempt: Attempt) -> SetAside:
    """Record a failed routing; with the last one that there may be within a minute the event is dead."""
    now = attempt.now
    first = event.first_failed_at
    again = first is not None and now - first <= _WINDOW_MS
    tries = event.tries + 1 if again else 1
    dead = tries >= attempt.max_tries
    why = shorten(f"{type(error).__name__}: {error}")
    connection.execute(
        update(InboundEvent)
        .where(InboundEvent.id == event.id, InboundEvent.state == "pending")
        .values(
            state="dead" if dead else "pending",
            tries=tries,
            first_failed_at=first if again else now,
            next_try_at=None if dead else now + _RETRY_MS,
            error=why,
        )
    )
    where = {"channel_type": chat[0], "platform_id": chat[1], "message": event.platform_message_id, "tries": tries}
    by = {"error": why, "worker": attempt.worker, "task": task_at_work()}
    changed(connection, "message.dead" if dead else "message.retrying", event.id, where | by)
    if not dead:
        return SetAside(False)
    _log.error("event_dead", event_id=event.id, tries=tries)
    return SetAside(True, tell_dead(connection, chat, event.id, event.thread_id))


def tell_dead(connection: Connection, chat: Chat, event_id: str, thread_id: str | None) -> tuple[str, str] | None:
    """Tell the chat that an event is dead, in the name of its latest session, which is returned with its agent group.

    A chat where nobody ever talked to an agent hears nothing.
    """
    latest = connection.execute(
        select(AgentSession.id, AgentSession.agent_group_id)
        .join(ChatRow, ChatRow.id == AgentSession.messaging_group_id)
        .where(
            ChatRow.channel_type == chat[0],
            ChatRow.platform_id == chat[1],
            AgentSession.status == "active",
        )
        .order_by(AgentSession.last_active.desc().nulls_last(), AgentSession.created_at.desc())
        .limit(1)
    ).first()
    if latest is None:
        return None
    enter_host_message(connection, latest.id, f"dead-{event_id}", Address(*chat, thread_id), _NOTICE)
    return latest.id, latest.agent_group_id
