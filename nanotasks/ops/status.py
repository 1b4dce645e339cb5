"""The state of an installation on one screen, from the central database and, when it answers, Redis."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from nanotasks import __version__
from nanotasks.central import Database, leases
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.migrate import state as schema_state
from nanotasks.central.sessions import AgentSession
from nanotasks.settings import Settings
from nanotasks.sweep import ticks

# Since when a session is due. A due time of 0 means at once, which is since the session was last active.
due_since = case(
    (AgentSession.next_due_at == 0, func.coalesce(AgentSession.last_active, AgentSession.created_at)),
    else_=AgentSession.next_due_at,
)


def status(db: Database, config: Settings) -> dict[str, Any]:
    """Everything `nanotasks status` shows. Instants are milliseconds. Raises `DependencyDownError` without database."""
    schema = schema_state(db)
    with db.read() as session:
        now = db.now_ms(session)
        hosts = [_host(session, host, now, config) for host in session.scalars(select(Host).order_by(Host.id))]
        found = {
            "version": __version__,
            "now_at": now,
            "database": {
                "url": db.url.render_as_string(hide_password=True),
                "schema": schema.current,
                "up_to_date": schema.up_to_date,
            },
            "hosts": hosts,
            "groups": _count(session, AgentGroup.id),
            "sessions": _by_state(session, AgentSession.status),
            "running_agents": _count(session, Instance.id, Instance.ended_at.is_(None)),
            "events": _by_state(session, InboundEvent.state),
            "routes": _by_state(session, InboundRoute.state),
            "deliveries": _by_state(session, Delivery.state),
            "oldest": _oldest(session, now),
            "leases": [
                {"name": one.name, "owner": one.owner, "epoch": one.epoch, "expires_at": one.expires_at}
                for one in leases.held_now(session)
            ],
            "ticks_s": ticks.ages_s(db),
        }
    return found | {"redis": _redis(config, [host["id"] for host in hosts])}


def _host(session: Session, host: Host, now: int, config: Settings) -> dict[str, Any]:
    silent = host.state == "up" and now - host.heartbeat_at > config.host_timeout_s * 1000
    running = _count(session, Instance.id, Instance.ended_at.is_(None), Instance.host_id == host.id)
    return {
        "id": host.id,
        "state": "silent" if silent else host.state,
        "heartbeat_at": host.heartbeat_at,
        "running_agents": running,
        "capacity": host.capacity,
    }


def _oldest(session: Session, now: int) -> dict[str, int | None]:
    """Since when the longest waiting thing of each kind waits; null when nothing does."""
    return {
        "unrouted_event_at": _least(session, InboundEvent.received_at, InboundEvent.state == "pending"),
        "unappended_route_at": _least(session, InboundRoute.created_at, InboundRoute.state == "pending"),
        "due_session_at": _least(session, due_since, AgentSession.status == "active", AgentSession.next_due_at <= now),
        "open_delivery_at": _least(session, Delivery.created_at, Delivery.state.in_(OPEN_STATES)),
    }


def _redis(config: Settings, host_ids: list[str]) -> dict[str, Any]:
    from nanotasks import signals
    from nanotasks.celery_app import DEFAULT, INBOUND, host_queue

    known = sorted({*host_ids, config.host_id})
    depths = signals.queue_depths([INBOUND, DEFAULT, *(host_queue(host_id) for host_id in known)])
    return {"answers": depths is not None, "queues": depths or {}}


def _count(session: Session, column: Any, *conditions: Any) -> int:
    return session.execute(select(func.count(column)).where(*conditions)).scalar_one()


def _by_state(session: Session, column: Any) -> dict[str, int]:
    return dict(session.execute(select(column, func.count()).group_by(column).order_by(column)).all())


def _least(session: Session, column: Any, *conditions: Any) -> int | None:
    found: int | None = session.execute(select(func.min(column)).where(*conditions)).scalar_one()
    return found
