"""Events by an operator's hand: what was dropped or set aside is routed once more (promise I8: audited by the caller).

After the commit, ring `route` for the event's chat.
"""

from __future__ import annotations

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from nanotasks.central.engine import rows_changed
from nanotasks.central.events import Drop, InboundEvent
from nanotasks.errors import ConflictError

ENDED = ("dropped", "dead")


def route_again(session: Session, event: InboundEvent) -> None:
    """Let a dropped or dead event be routed by the rules as they are now; sessions that have it do not get it twice.

    Raises `ConflictError` for an event that is pending or was routed.
    """
    if event.state not in ENDED:
        raise ConflictError(f"The event {event.id} is {event.state}.", fix="Only dropped and dead events are retried.")
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
