"""Hosts: their signs of life, and which of them count as up.

A host is up from its first heartbeat until its last worker stops, or until it is silent for `host_timeout_s`; then
it is down until the next one.
An operator's `draining` stays as it is. Signals are sent only to hosts that are up.

A host is one data directory, its *place*: it alone has the files of the agents that live there. While its heartbeats
come, another place under the same id is refused, since the two would share one queue and each get half of the work.
A place that was silent for `host_timeout_s`, or whose workers were stopped, may be replaced, and the epoch grows:

    (no row) ──▶ place A, epoch 1 ──A stops, or is silent──▶ place B, epoch 2 ──▶ …
                      │ ▲
                      └─┘ A's heartbeats. One of B meanwhile is refused; one of A afterwards, too: its worker ends

Where a host shares a directory with others, the files of its agents are in there, and its mark, the *volume*, takes
part: a host with agents is refused while another directory is before it, as when nothing is mounted.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nanotasks import faults, paths
from nanotasks.central import Database, rows_changed
from nanotasks.central.changes import changed
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.errors import ConflictError
from nanotasks.runtimes import host_lease
from nanotasks.settings import Settings


class HostRefusedError(ConflictError):
    """This machine may not live as the host that it says it is."""


class HostTakenError(HostRefusedError):
    """Another data directory lives under this host id."""


class FilesMissingError(HostRefusedError):
    """The agent groups of this host have their files in another directory than the one that it has before it."""


def sign_of_life(db: Database, settings: Settings) -> None:
    """Say that this host lives: to the others by its row, and to its agents on shared storage by its lease.

    Raises as `heartbeat`, and `OSError` when the marks of its directories or the lease cannot be written.
    """
    began = host_lease.boot_ms()
    heartbeat(db, settings, paths.place(settings), paths.volume(settings))
    if settings.storage == "shared":
        faults.point("lease.before_write")
        host_lease.renew(settings, began)


def heartbeat(db: Database, settings: Settings, place: str | None = None, volume: str | None = None) -> None:
    """Write this host's sign of life, and its row when it has none yet.

    `place` is the mark of its data directory, `volume` the one of the directory that it shares with others. Raises
    `HostTakenError` while another place gives signs of life under this id, `FilesMissingError` when agent groups live
    on this host and their files were on another volume: a mount is missing, or a setting was changed.
    """
    with db.write() as session:
        now = db.now_ms(session)
        alive = {
            "heartbeat_at": now,
            "silent_at": None,
            "capacity": settings.max_containers,
            "storage": settings.storage,
            "volume": volume,
            "agent_lease_ms": round(settings.agent_lease_s * 1000) if volume is not None else None,
            **_moved_in(session, settings, place, volume, now),
        }
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


def _moved_in(session: Session, settings: Settings, place: str | None, volume: str | None, now: int) -> dict[str, Any]:
    """What a heartbeat changes of the host's row where its place is new."""
    known = session.execute(
        select(Host.place, Host.epoch, Host.state, Host.heartbeat_at, Host.volume)
        .where(Host.id == settings.host_id)
        .with_for_update()
    ).one_or_none()
    if known is not None and known.volume is not None and known.volume != volume:
        _require_no_files(session, settings)
    if place is None or (known is not None and known.place == place):
        return {}
    if known is None:
        return {"place": place, "epoch": 1}
    silent_s = (now - known.heartbeat_at) / 1000
    if known.place is not None and known.state != "down" and silent_s < settings.host_timeout_s:
        raise HostTakenError(
            f"Another data directory is at work as the host {settings.host_id}.",
            why=f"Its last sign of life came {max(0.0, silent_s):.0f} s ago.",
            fix=f"Give each machine a NANOTASKS_HOST_ID of its own. If that one is gone for good, wait until it was"
            f" silent for {settings.host_timeout_s:g} s.",
        )
    return {"place": place, "epoch": known.epoch + 1}


def _require_no_files(session: Session, settings: Settings) -> None:
    left = select(AgentGroup.id).where(AgentGroup.host_id == settings.host_id).limit(1)
    if session.scalars(left).first() is not None:
        raise FilesMissingError(
            f"{settings.files_dir} is not the directory where the agent groups of {settings.host_id} live.",
            why="It lacks the mark of the shared directory that this host had: perhaps that is not mounted.",
            fix="Mount it, or set NANOTASKS_SHARED_DIR to where it is. If it was copied, copy its file `volume` too.",
        )


def mark_stopped(db: Database, settings: Settings, place: str | None = None) -> None:
    """Call this host down at once: its keeper stops. Where another worker takes over, its heartbeat calls it up."""
    with db.write() as session:
        mine = update(Host).where(Host.id == settings.host_id, Host.state == "up").values(state="down")
        if place is not None:
            mine = mine.where(or_(Host.place.is_(None), Host.place == place))
        if rows_changed(session, mine):
            changed(session, "host.down", settings.host_id, {"reason": "stopped"})


def mark_silent(db: Database, settings: Settings) -> list[str]:
    """Call hosts down that are silent for too long; every host that is down, or drains and is silent.

    What such a host holds is freed. One that drains stays so in its row: that is an operator's decision.
    """
    with db.write() as session:
        now = db.now_ms(session)
        silent = now - round(settings.host_timeout_s * 1000)
        found = update(Host).where(Host.heartbeat_at < silent, Host.silent_at.is_(None)).values(silent_at=now)
        session.execute(found)
        fallen = update(Host).where(Host.state == "up", Host.heartbeat_at < silent).values(state="down")
        for host_id in session.scalars(fallen.returning(Host.id)).all():
            changed(session, "host.down", host_id, {"reason": "silent"})
        gone = or_(Host.state == "down", and_(Host.state == "draining", Host.heartbeat_at < silent))
        return list(session.scalars(select(Host.id).where(gone).order_by(Host.id)))


def hosts_at_work(db: Database) -> list[str]:
    """The hosts that are up or draining: those whose sessions are swept."""
    with db.read() as session:
        return list(session.scalars(select(Host.id).where(Host.state != "down").order_by(Host.id)))
