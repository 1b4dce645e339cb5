"""Telling those who wait for an answer that their message is kept, where it cannot be worked on for a while.

It is said by the host, so it goes out although the session's own files may be out of order.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from nanotasks.central.base import in_states, table_of
from nanotasks.central.events import InboundRoute
from nanotasks.channels.contract import Address
from nanotasks.deliver.host_messages import enter_host_message

_route = table_of(InboundRoute).c


def tell_waiting(
    session: Session | Connection, session_id: str, text: str, *, states: tuple[str, ...], before_ms: int | None = None
) -> bool:
    """Tell every place that waits for this session, in the caller's transaction; whether one was told just now.

    `states` are those of the routes that count, `before_ms` leaves out what came later. The key is a place's oldest
    message, so that each place is told once while that waits. Ring `deliver` for the session after the commit.
    """
    waiting = select(
        _route.reply_channel_type, _route.reply_platform_id, _route.reply_thread_id, func.min(_route.id)
    ).where(
        _route.session_id == session_id,
        in_states("inbound_routes", *states),
        _route.trigger == 1,
        _route.reply_channel_type.is_not(None),
        _route.reply_platform_id.is_not(None),
    )
    if before_ms is not None:
        waiting = waiting.where(_route.created_at < before_ms)
    places = session.execute(
        waiting.group_by(_route.reply_channel_type, _route.reply_platform_id, _route.reply_thread_id)
    ).all()
    told = [
        enter_host_message(
            session, session_id, f"kept-{oldest}", Address(str(channel_type), str(platform_id), thread_id), text
        )
        for channel_type, platform_id, thread_id, oldest in places
    ]
    return any(told)
