"""Giving agent groups a host: the first message decides, and the group stays there."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, func, or_, select, text, update

from nanotasks.central.base import in_states, table_of
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.events import InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.domain.placement import HostLoad, choose_host

_group, _host, _route = table_of(AgentGroup).c, table_of(Host).c, table_of(InboundRoute).c
_delivery = table_of(Delivery).c
_WITHOUT_HOST = (in_states("deliveries", *OPEN_STATES), _delivery.host_id.is_(None))
_GIVE_HOST = (
    update(table_of(Delivery))
    .where(*_WITHOUT_HOST)
    .values(host_id=select(_group.host_id).where(_group.id == _delivery.agent_group_id).scalar_subquery())
)

_LOADS = (
    select(_host.id, func.count(_group.id), _host.capacity)
    .outerjoin(table_of(AgentGroup), _group.host_id == _host.id)
    .where(_host.state == "up")
    .group_by(_host.id, _host.capacity)
)


def place(connection: Connection, group_ids: Collection[str]) -> dict[str, str | None]:
    """The host of each group, chosen now where it has none; None while no host is up."""
    found = connection.execute(select(_group.id, _group.host_id).where(_group.id.in_(group_ids)))
    placed: dict[str, str | None] = {row.id: row.host_id for row in found}
    for group_id in sorted(group_id for group_id, host_id in placed.items() if host_id is None):
        placed[group_id] = _choose(connection, group_id)
    return placed


def place_waiting(connection: Connection, limit: int) -> dict[str, str | None]:
    """Place the groups whose messages wait, because no host was up when they came.

    What the host said in the name of a group without a host (refusals) goes to the one that it has got.
    """
    placed = _place_groups(connection, limit)
    connection.execute(_GIVE_HOST)
    return placed


def _place_groups(connection: Connection, limit: int) -> dict[str, str | None]:
    # The state is written out, so that SQLite sees that the partial index fits.
    messages = select(_route.id).where(_route.agent_group_id == _group.id, text("inbound_routes.state = 'pending'"))
    refusals = select(_delivery.id).where(_delivery.agent_group_id == _group.id, *_WITHOUT_HOST)
    waits = or_(messages.exists(), refusals.exists())
    waiting = select(_group.id).where(_group.host_id.is_(None), waits).order_by(_group.id).limit(limit)
    group_ids = connection.execute(waiting).scalars().all()
    return place(connection, group_ids) if group_ids else {}


def _choose(connection: Connection, group_id: str) -> str | None:
    host_id = choose_host(HostLoad(*load) for load in connection.execute(_LOADS))
    if host_id is None:
        return None
    # Another router may have placed the group meanwhile: then its choice stands.
    unplaced = update(table_of(AgentGroup)).where(_group.id == group_id, _group.host_id.is_(None))
    connection.execute(unplaced.values(host_id=host_id))
    chosen: str | None = connection.execute(select(_group.host_id).where(_group.id == group_id)).scalar_one()
    return chosen
