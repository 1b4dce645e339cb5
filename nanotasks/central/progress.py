"""How far accepted messages have come, for somebody who waits for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select
from sqlalchemy.orm import Session

from nanotasks.central.base import in_states
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.events import Drop, InboundEvent, InboundRoute


@dataclass
class Progress:
    """The facts about one event: its state, why it was dropped, the states of its routes, and whether a delivery of
    one of their sessions into its chat is on its way. A parked delivery is not on its way."""

    event_state: str
    reason: str | None
    route_states: list[str] = field(default_factory=list)
    is_delivering: bool = False


def of_events(db: Session | Connection, event_ids: Collection[str]) -> dict[str, Progress]:
    """The progress of each event that exists."""
    found: dict[str, Progress] = {}
    for event_id, state, error, reason, route_state, delivering in db.execute(_QUERY, {"ids": list(event_ids)}):
        progress = found.setdefault(event_id, Progress(state, reason or error))
        if route_state is not None:
            progress.route_states.append(route_state)
            progress.is_delivering = progress.is_delivering or bool(delivering)
    return found


def _query() -> Select[Any]:
    lane = InboundRoute.session_id.concat("|" + InboundEvent.channel_type).concat("|" + InboundEvent.platform_id)
    delivering = (
        select(func.count())
        .where(Delivery.lane == lane, in_states("deliveries", *OPEN_STATES), Delivery.state != "parked")
        .correlate(InboundEvent, InboundRoute)
        .scalar_subquery()
    )
    return (
        select(InboundEvent.id, InboundEvent.state, InboundEvent.error, Drop.reason, InboundRoute.state, delivering)
        .outerjoin(Drop, Drop.event_id == InboundEvent.id)
        .outerjoin(InboundRoute, InboundRoute.event_id == InboundEvent.id)
        .where(InboundEvent.id.in_(bindparam("ids", expanding=True)))
    )


_QUERY = _query()
