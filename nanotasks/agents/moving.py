"""Moving an agent group, with its workspace and all its sessions, to another host. No file is copied.

Two hosts that read one shared directory (its mark is their `volume`) have the same files. A group moves between
them with one conditional change of its row, and its epoch grows:

    on A, epoch e ──an operator, or a drain──▶ on B, e + 1    A lives: it stops its agents, then B starts its own
                  ──A was silent──▶ on B, e + 1               A's agents have stopped themselves (runtimes.host_lease)

A host is silent once the sweep has called it so (`silent_at`) and nothing was heard for `CONFIRMED_BEATS` periods more:
a database whose clock is set forward finds every host silent for one period, and no longer. Where the silence is found
late, because all hosts were off, each has a whole time-out to come back. A group whose agents would not stop by
themselves (not `fenced`) stays where it is and waits for its host.

Whoever moves a group, or enters the start of an agent, holds the row of the group's host until the commit. So a start
is either entered before the move, and its live row keeps other hosts from starting one, or it is refused. What is
recorded live on another host is left to that host while it lives; when it is silent, the new one buries it. What
each failure does:

- the mover dies before its commit: nothing happened; after it, and before the signals: the sweeps of the new host
  find due sessions, deliveries that wait, and agents recorded on a host that is gone.
- the old host comes back: its row has another epoch, its agents have ended, and its tasks find that the group lives
  elsewhere. A send that it was in the middle of is closed as of unknown outcome, as after any death (deliver.service).
- the new host dies too: it moves again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from nanotasks.central import rows_changed
from nanotasks.central.changes import changed
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.domain.placement import HostLoad, choose_host
from nanotasks.settings import Settings

CONFIRMED_BEATS = 2
# What may wait for a session at its new host.
_KINDS = ("append", "wake", "deliver")


@dataclass(frozen=True)
class Moved:
    """A group that has moved; `sessions` are those where something runs or waits."""

    agent_group_id: str
    from_host: str
    to_host: str
    epoch: int
    sessions: tuple[str, ...]

    @property
    def signals(self) -> list[tuple[str, str, str]]:
        """What to ring after the commit: what runs is stopped by the old host, if it lives, then the new one starts."""
        old = [("wake", session_id, self.from_host) for session_id in self.sessions]
        new = [(kind, session_id, self.to_host) for session_id in self.sessions for kind in _KINDS]
        return old + new


def is_gone(host: Host, now: int, settings: Settings) -> bool:
    """Whether this host was found silent and stayed so until `now`: its fenced agents are dead."""
    if host.silent_at is None:
        return False
    timeout_ms = settings.host_timeout_s * 1000
    found_late = host.silent_at - host.heartbeat_at > 2 * timeout_ms
    patience_ms = timeout_ms if found_late else CONFIRMED_BEATS * settings.host_heartbeat_s * 1000
    # By the host's own setting, which may be another than that of who looks.
    agents_ms = (host.agent_lease_ms or 0) + settings.agent_lease_margin_s * 1000
    return now - host.silent_at >= patience_ms and now - host.heartbeat_at >= agents_ms


def lock_host(session: Session, host_id: str) -> Host | None:
    """The host's row, which nobody else changes before the end of this transaction."""
    return session.scalars(
        select(Host).where(Host.id == host_id).with_for_update().execution_options(populate_existing=True)
    ).one_or_none()


def move_all(session: Session, leaving: Host, reason: str, *, fenced: bool, limit: int | None = None) -> list[Moved]:
    """Move up to `limit` groups of a host, whose row the caller holds, to others; with `fenced` only such groups."""
    found = []
    for group in _groups_of(session, leaving.id, fenced=fenced)[:limit]:
        to_host = choose(session, leaving)
        if to_host is None:
            break
        moved = move(session, group, to_host, reason)
        found += [moved] if moved else []
    return found


def _groups_of(session: Session, host_id: str, *, fenced: bool) -> list[AgentGroup]:
    """By id; with `fenced` only those whose agents all stop by themselves."""
    groups = select(AgentGroup).where(AgentGroup.host_id == host_id).order_by(AgentGroup.id)
    if fenced:
        unfenced = exists().where(
            Instance.agent_group_id == AgentGroup.id,
            Instance.host_id == host_id,
            Instance.ended_at.is_(None),
            Instance.fenced == 0,
        )
        groups = groups.where(~unfenced)
    return list(session.scalars(groups))


def choose(session: Session, leaving: Host) -> str | None:
    """The host that may take a group of this one: up, with the same files, with the fewest groups for its capacity."""
    if leaving.volume is None:
        return None
    loads = (
        select(Host.id, func.count(AgentGroup.id), Host.capacity)
        .outerjoin(AgentGroup, AgentGroup.host_id == Host.id)
        .where(Host.state == "up", Host.silent_at.is_(None), Host.volume == leaving.volume, Host.id != leaving.id)
        .group_by(Host.id, Host.capacity)
    )
    return choose_host(HostLoad(*load) for load in session.execute(loads))


def move(session: Session, group: AgentGroup, to_host: str, reason: str) -> Moved | None:
    """Let a group live on another host; None when it has left its host meanwhile. The caller holds its host's row."""
    from_host, epoch = group.host_id, group.epoch
    if from_host is None:
        return None
    here = update(AgentGroup).where(
        AgentGroup.id == group.id, AgentGroup.host_id == from_host, AgentGroup.epoch == epoch
    )
    if rows_changed(session, here.values(host_id=to_host, epoch=epoch + 1)) == 0:
        return None
    # Also what was given up or is held: an operator may send it once more.
    waiting = update(Delivery).where(
        Delivery.session_id.in_(select(AgentSession.id).where(AgentSession.agent_group_id == group.id)),
        or_(Delivery.state != "delivered", Delivery.projected_at.is_(None)),
    )
    session.execute(waiting.values(host_id=to_host).execution_options(synchronize_session=False))
    told = {"from_host": from_host, "to_host": to_host, "epoch": epoch + 1, "reason": reason}
    changed(session, "group.moved", group.id, told)
    return Moved(group.id, from_host, to_host, epoch + 1, tuple(_busy(session, group.id)))


def _busy(session: Session, group_id: str) -> Iterable[str]:
    runs = exists().where(Instance.session_id == AgentSession.id, Instance.ended_at.is_(None))
    # Written out, so that SQLite sees that the partial index fits.
    waits = exists().where(InboundRoute.session_id == AgentSession.id, text("inbound_routes.state = 'pending'"))
    sessions = select(AgentSession.id).where(
        AgentSession.agent_group_id == group_id, or_(AgentSession.next_due_at.is_not(None), runs, waits)
    )
    return session.scalars(sessions.order_by(AgentSession.id))
