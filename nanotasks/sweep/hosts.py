"""Hosts: their signs of life, and which of them count as up.

A host is up from its first heartbeat until its last worker stops, or until it is silent for `host_timeout_s`; then
it is down until the next one.
An operator's `draining` stays as it is. Signals are sent only to hosts that are up.
"""

from __future__ import annotations

from sqlalchemy import and_, or_, select, update
from sqlalchemy.exc import IntegrityError

from nanotasks.central import Database, rows_changed
from nanotasks.central.changes import changed
from nanotasks.central.hosts import Host
from nanotasks.settings import Settings


def heartbeat(db: Database, settings: Settings) -> None:
    """Write this host's sign of life, and its row when it has none yet."""
    with db.write() as session:
        now = db.now_ms(session)
        alive = {"heartbeat_at": now, "capacity": settings.max_containers}
        mine = update(Host).where(Host.id == settings.host_id)
        if rows_changed(session, mine.where(Host.state == "down").values(state="up")):
            changed(session, "host.up", settings.host_id)
        if rows_changed(session, mine.values(alive)) == 0:
            try:
                with session.begin_nested():
                    session.add(Host(id=settings.host_id, state="up", created_at=now, **alive))
                    changed(session, "host.up", settings.host_id)
            except IntegrityError:
                session.execute(mine.values(alive))


def mark_stopped(db: Database, settings: Settings) -> None:
    """Call this host down at once: its keeper stops. Where another worker takes over, its heartbeat calls it up."""
    with db.write() as session:
        mine = update(Host).where(Host.id == settings.host_id, Host.state == "up").values(state="down")
        if rows_changed(session, mine):
            changed(session, "host.down", settings.host_id, {"reason": "stopped"})


def mark_silent(db: Database, settings: Settings) -> list[str]:
    """Call hosts down that are silent for too long; every host that is down, or drains and is silent.

    What such a host holds is freed. One that drains stays so in its row: that is an operator's decision.
    """
    with db.write() as session:
        silent = db.now_ms(session) - round(settings.host_timeout_s * 1000)
        fallen = update(Host).where(Host.state == "up", Host.heartbeat_at < silent).values(state="down")
        for host_id in session.scalars(fallen.returning(Host.id)).all():
            changed(session, "host.down", host_id, {"reason": "silent"})
        gone = or_(Host.state == "down", and_(Host.state == "draining", Host.heartbeat_at < silent))
        return list(session.scalars(select(Host.id).where(gone).order_by(Host.id)))


def hosts_at_work(db: Database) -> list[str]:
    """The hosts that are up or draining: those whose sessions are swept."""
    with db.read() as session:
        return list(session.scalars(select(Host.id).where(Host.state != "down").order_by(Host.id)))
