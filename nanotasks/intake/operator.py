"""Events by an operator's hand: what was dropped, set aside or left unanswered is tried once more, and what waits for
another try is tried at once or given up (promise I8: audited by the caller).

After the commit, ring `route` for the event's chat, `append` for the sessions of `ask_again`, `deliver` for the one of
`give_up`.
"""

from __future__ import annotations

import re

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nanotasks.central.changes import changed
from nanotasks.central.engine import rows_changed
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import ConflictError
from nanotasks.intake.failure import tell_dead

ENDED = ("dropped", "dead")


def route_again(session: Session, event: InboundEvent) -> None:
    """Let a dropped or dead event be routed by the rules as they are now; sessions that have it do not get it twice.

    Raises `ConflictError` for an event that is pending or was routed.
    """
    if event.state not in ENDED:
        raise ConflictError(
            f"The event {event.id} is {event.state}.",
            why="Only what was dropped, or ended without an answer, is retried.",
            fix=f"`nanotasks intake show {event.id}` tells what became of it.",
        )
    changed = rows_changed(
        session,
        update(InboundEvent)
        .where(InboundEvent.id == event.id, InboundEvent.state == event.state)
        .values(state="pending", tries=0, first_failed_at=None, next_try_at=None, error=None, routed_at=None),
    )
    if changed != 1:
        raise ConflictError(f"The event {event.id} was changed meanwhile.", fix="Look at it again.")
    # The reason that is to be recorded is the one of the next routing.
    session.execute(delete(Drop).where(Drop.event_id == event.id))
    session.refresh(event)


def try_now(session: Session, event: InboundEvent) -> None:
    """Let an event whose routing failed be routed at once. Raises `ConflictError` for one that does not wait for it."""
    # A time of the database's clock that has passed, whatever the clock here says.
    _change_waiting(session, event, next_try_at=event.first_failed_at or event.received_at)


def give_up(session: Session, event: InboundEvent, reason: str) -> tuple[str, str] | None:
    """Set an event aside whose routing failed; the session, and its agent group, in whose name its chat is told.

    Raises `ConflictError` for an event that does not wait for another try.
    """
    _change_waiting(session, event, state="dead", next_try_at=None, error=reason)
    chat = (event.channel_type, event.platform_id)
    detail = {"channel_type": chat[0], "platform_id": chat[1], "message": event.platform_message_id}
    changed(session, "message.dead", event.id, {**detail, "tries": event.tries, "error": reason})
    return tell_dead(session.connection(), chat, event.id, event.thread_id)


def _change_waiting(session: Session, event: InboundEvent, **values: object) -> None:
    if event.state != "pending" or event.next_try_at is None:
        raise ConflictError(
            f"The event {event.id} does not wait for another try.",
            why=f"It is {event.state}.",
            fix=f"`nanotasks intake show {event.id}` tells what became of it.",
        )
    seen = (InboundEvent.id == event.id, InboundEvent.state == "pending", InboundEvent.tries == event.tries)
    if rows_changed(session, update(InboundEvent).where(*seen).values(**values)) != 1:
        raise ConflictError(f"The event {event.id} was changed meanwhile.", fix="Look at it again.")
    session.refresh(event)


def ask_again(session: Session, event: InboundEvent) -> list[str]:
    """Give a routed event to those sessions once more in which it ended without an answer; the sessions.

    It is a new row there. Files that came with it are not stored a second time.
    """
    unanswered = session.scalars(
        select(InboundRoute)
        .join(AgentSession, AgentSession.id == InboundRoute.session_id)
        .where(InboundRoute.event_id == event.id, InboundRoute.state == "dead", AgentSession.status == "active")
        .with_for_update()
    ).all()
    for route in unanswered:
        known = InboundRoute.session_id == route.session_id
        base, number = re.sub(r"~\d+$", "", route.inbound_id), 2
        while session.scalar(select(InboundRoute.id).where(known, InboundRoute.inbound_id == f"{base}~{number}")):
            number += 1
        route.inbound_id = f"{base}~{number}"
        route.state, route.error, route.finished_at, route.appended_at = "pending", None, None, None
        route.signalled_at = None
    session.flush()
    return [route.session_id for route in unanswered]
