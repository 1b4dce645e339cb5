"""Messages of a session that is closed: nobody works on them any more, so they end, and their chat is told.

Without this they would wait for ever (promise I1). It happens in the transaction that closes the session, and once
more where a router that had seen the session open writes to it afterwards: the append finds those.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select, update
from sqlalchemy.orm import Session

from nanotasks.central.base import in_states, table_of
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundRoute
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.deliver.host_messages import enter_host_message

CLOSED = "This conversation was closed before your message was answered. Please send it again to begin a new one."
_WHY = "its session was closed"

_OPEN = ("pending", "appended")

_route, _delivery = table_of(InboundRoute).c, table_of(Delivery).c


def end_unfinished(
    session: Session | Connection,
    session_id: str,
    *,
    why: str = _WHY,
    notice: str = CLOSED,
    states: tuple[str, ...] = _OPEN,
) -> bool:
    """End every route of a session that has no end yet, in the caller's transaction; whether somebody is told of it.

    A message to which a reply is known is answered, or completed where the reply is still on its way. The others
    are dead, with one notice in each place they came from. Ring `deliver` for the session after the commit.
    """
    routes = session.execute(
        select(
            _route.id,
            _route.inbound_id,
            _route.trigger,
            _route.reply_channel_type,
            _route.reply_platform_id,
            _route.reply_thread_id,
        )
        .where(_route.session_id == session_id, in_states("inbound_routes", *states))
        .order_by(_route.id)
        .with_for_update()
    ).all()
    replies = _replies(session, session_id, [route.inbound_id for route in routes])
    now, places = now_ms(), dict[Address, int]()
    for route in routes:
        end = _end(replies.get(route.inbound_id, ()))
        error = why if end == "dead" else None
        session.execute(
            update(table_of(InboundRoute)).where(_route.id == route.id).values(state=end, finished_at=now, error=error)
        )
        if end == "dead" and route.trigger and route.reply_channel_type and route.reply_platform_id:
            place = Address(route.reply_channel_type, route.reply_platform_id, route.reply_thread_id)
            places.setdefault(place, route.id)
    for place, first in places.items():
        enter_host_message(session, session_id, f"closed-{first}", place, notice)
    return bool(places)


def _end(replies: Collection[str]) -> str:
    if "delivered" in replies:
        return "answered"
    return "completed" if set(replies) - {"dead"} else "dead"


def _replies(session: Session | Connection, session_id: str, inbound_ids: list[str]) -> dict[str | None, list[str]]:
    replies: dict[str | None, list[str]] = {}
    found = session.execute(
        select(_delivery.in_reply_to, _delivery.state).where(
            _delivery.session_id == session_id, _delivery.in_reply_to.in_(inbound_ids)
        )
    )
    for answered, state in found:
        replies.setdefault(answered, []).append(state)
    return replies
