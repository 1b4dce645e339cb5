"""Hosts as an operator sees them, and taking one out of the choice for new agent groups.

    up ──drain──▶ draining ──undrain──▶ up (down, when it has been silent meanwhile; its next heartbeat calls it up)

A draining host gets no new agent groups. Those that live there move to other hosts with the same shared directory;
where there is none, their files are on this host, and they stay and go on working.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from nanotasks.agents.moving import Moved, choose, lock_host, move_all
from nanotasks.central import leases, rows_changed
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import ConflictError, NotFoundError
from nanotasks.ops.status import due_since
from nanotasks.owners import Owner


@dataclass(frozen=True)
class Moment:
    """When the hosts are looked at: `now` in milliseconds of the database's clock, and what silence is too long."""

    now: int
    timeout_s: float

    def is_silent(self, host: Host) -> bool:
        """Whether the last heartbeat is older than a host that works lets it become."""
        return self.now - host.heartbeat_at > self.timeout_s * 1000


def listed(session: Session, moment: Moment) -> list[dict[str, Any]]:
    """One row per host, by id: state, age of the heartbeat in ms, and how much is there."""
    groups = _by_host(session, AgentGroup.host_id)
    live = _by_host(session, Instance.host_id, Instance.ended_at.is_(None))
    held = Counter(owner.host for owner in _lease_owners(session))
    due: dict[str, int] = dict(
        session.execute(
            select(AgentGroup.host_id, func.min(due_since))
            .join(AgentSession, AgentSession.agent_group_id == AgentGroup.id)
            .where(AgentSession.status == "active", AgentSession.next_due_at <= moment.now)
            .group_by(AgentGroup.host_id)
        ).all()
    )
    return [
        {
            "id": host.id,
            "state": host.state,
            "silent": moment.is_silent(host),
            "heartbeat_at": host.heartbeat_at,
            "heartbeat_age_ms": moment.now - host.heartbeat_at,
            "storage": host.storage,
            "capacity": host.capacity,
            "epoch": host.epoch,
            "groups": groups.get(host.id, 0),
            "live_instances": live.get(host.id, 0),
            "leases": held[host.id],
            "oldest_due_at": due.get(host.id),
        }
        for host in session.scalars(select(Host).order_by(Host.id))
    ]


def shown(session: Session, host_id: str, moment: Moment) -> dict[str, Any]:
    """One host with its agent groups, live instances and held leases. Raises `NotFoundError`."""
    found = one(session, host_id)
    (row,) = [row for row in listed(session, moment) if row["id"] == found.id]
    groups = select(AgentGroup).where(AgentGroup.host_id == found.id).order_by(AgentGroup.id)
    live = select(Instance).where(Instance.host_id == found.id, Instance.ended_at.is_(None)).order_by(Instance.id)
    return {
        **row,
        "created_at": found.created_at,
        "volume": found.volume,
        "silent_at": found.silent_at,
        "agent_groups": [
            {"id": group.id, "name": group.name, "epoch": group.epoch} for group in session.scalars(groups)
        ],
        "instances": [
            {"id": start.id, "session_id": start.session_id, "runtime": start.runtime, "started_at": start.started_at}
            for start in session.scalars(live)
        ],
        "held_leases": [
            {"name": lease.name, "owner": lease.owner, "epoch": lease.epoch, "expires_at": lease.expires_at}
            for lease in leases.held_now(session)
            if _host_of(lease.owner) == found.id
        ],
    }


def one(session: Session, host_id: str) -> Host:
    """The host with this id. Raises `NotFoundError`, which names those that there are."""
    found = session.get(Host, host_id)
    if found is None:
        known = ", ".join(session.scalars(select(Host.id).order_by(Host.id))) or "none yet"
        raise NotFoundError(f"There is no host {host_id!r}.", fix=f"Hosts: {known}.")
    return found


def plan_drain(session: Session, host_id: str, moment: Moment) -> dict[str, Any]:
    """What draining this host means; changes nothing. Raises `ConflictError` when it is not up."""
    host = one(session, host_id)
    if host.state != "up":
        fix = "It gets new agent groups again with `nanotasks hosts undrain`." if host.state == "draining" else None
        raise ConflictError(
            f"The host {host_id} is {host.state}, not up.",
            why="No new agent groups are placed there now.",
            fix=fix or "Start its worker first, then drain it.",
        )
    others = session.scalars(select(Host).where(Host.state == "up", Host.id != host_id).order_by(Host.id))
    (row,) = [row for row in listed(session, moment) if row["id"] == host_id]
    moving = row["groups"] if choose(session, host) is not None else 0
    return {
        "id": host_id,
        "groups_moving": moving,
        "groups_staying": row["groups"] - moving,
        "live_instances": row["live_instances"],
        "others_up": [other.id for other in others if not moment.is_silent(other)],
    }


def drain(session: Session, host_id: str) -> list[Moved]:
    """Place no new agent groups on this host, and move those that can move; their signals are rung after the commit.

    Raises `ConflictError` when it is not up (any more).
    """
    _change(session, host_id, "up", "draining")
    host = lock_host(session, host_id)
    return move_all(session, host, "its host drains", fenced=False) if host is not None else []


def undrain(session: Session, host_id: str, moment: Moment) -> str:
    """Let this host get new agent groups again; its new state. Raises `ConflictError` when it is not draining."""
    state = "down" if moment.is_silent(one(session, host_id)) else "up"
    _change(session, host_id, "draining", state)
    return state


def _change(session: Session, host_id: str, before: str, after: str) -> None:
    change = update(Host).where(Host.id == host_id, Host.state == before).values(state=after)
    if rows_changed(session, change) == 0:
        raise ConflictError(f"The host {host_id} is not {before}.", fix="Look at it: `nanotasks hosts list`.")


def _by_host(session: Session, column: Any, *conditions: Any) -> dict[str, int]:
    return dict(session.execute(select(column, func.count()).where(*conditions).group_by(column)).all())


def _lease_owners(session: Session) -> list[Owner]:
    parsed = [Owner.parse(lease.owner) for lease in leases.held_now(session) if lease.owner is not None]
    return [owner for owner in parsed if owner is not None]


def _host_of(owner: str | None) -> str | None:
    parsed = Owner.parse(owner) if owner is not None else None
    return parsed.host if parsed is not None else None
