"""What is the case now, one small query each, on partial indexes or tables that stay small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Select, case, exists, func, or_, select
from sqlalchemy.orm import Session

from nanotasks import __version__
from nanotasks.central.base import Base, in_states
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.figures import Canary, Fold
from nanotasks.central.hosts import HOST_STATES, Host, Instance
from nanotasks.central.leases import Lease
from nanotasks.central.meta import AuditEntry, Tick
from nanotasks.central.series import TaskRun
from nanotasks.central.sessions import AgentSession
from nanotasks.domain.vocabulary import ERROR_CLASSES
from nanotasks.watch.catalogue import SERIES_SHOWN

# Label values -> figure.
Samples: TypeAlias = Mapping[tuple[str, ...], float]

# A worker that is stopped for good is not shown for ever.
CANARY_SHOWN_MS = 900_000
_DISCARD = "dead.discard"
_NO_CLASS = "none"
_SHOWN_STATES = ("pending", "sending", "retrying", "parked", "held", "dead")
# Stands beside the states that are asked for, so that SQLite sees that the partial index fits.
_OPEN_RUNS = ("planned", "claimed", "retrying")
_due_since = case(
    (AgentSession.next_due_at == 0, func.coalesce(AgentSession.last_active, AgentSession.created_at)),
    else_=AgentSession.next_due_at,
)


def build_info(_session: Session, _now: int) -> Samples:
    return {(__version__,): 1}


def oldest_due(session: Session, now: int) -> Samples:
    least: dict[str, int | None] = {
        "intake": _least(session, InboundEvent.received_at, in_states("inbound_events", "pending")),
        "append": _least(session, InboundRoute.created_at, in_states("inbound_routes", "pending")),
        "wake": _least(
            session,
            _due_since,
            AgentSession.status == "active",
            AgentSession.next_due_at <= now,
            ~exists().where(Instance.session_id == AgentSession.id, Instance.ended_at.is_(None)),
        ),
        "delivery": _least(
            session, Delivery.next_attempt_at, in_states("deliveries", *OPEN_STATES), Delivery.next_attempt_at <= now
        ),
        "run": oldest_due_run(session, now),
    }
    return {(kind,): 0.0 if at is None else max(0, now - at) / 1000 for kind, at in least.items()}


def oldest_due_run(session: Session, now: int) -> int | None:
    """Since when (milliseconds) the longest waiting occurrence is due that no agent has claimed."""
    waits = in_states("task_runs", *_OPEN_RUNS), in_states("task_runs", "planned", "retrying")
    return _least(session, TaskRun.due_at, *waits, TaskRun.due_at <= now)


def retrying(session: Session, _now: int) -> Samples:
    waits = in_states("inbound_events", "pending"), InboundEvent.next_try_at.is_not(None)
    intake = _count(session, InboundEvent, *waits)
    is_active = AgentSession.status == "active"
    wake = _count(session, AgentSession, is_active, AgentSession.wake_retry_at.is_not(None))
    append = _count(session, AgentSession, is_active, AgentSession.append_error.is_not(None))
    return {
        ("intake", _NO_CLASS): intake,
        ("append", _NO_CLASS): append,
        ("wake", _NO_CLASS): wake,
        **_by_class(session, "delivery", Delivery.error_class, in_states("deliveries", "retrying", "parked")),
        **retrying_runs(session),
    }


def retrying_runs(session: Session) -> dict[tuple[str, ...], float]:
    """Runs that failed and are tried again, by the class of the failure."""
    found = (
        select(func.coalesce(TaskRun.error_class, _NO_CLASS), func.count())
        .where(in_states("task_runs", *_OPEN_RUNS), in_states("task_runs", "retrying"))
        .group_by(TaskRun.error_class)
    )
    return {("run", word): count for word, count in session.execute(found)}


def dead(session: Session, _now: int) -> Samples:
    event_end = func.coalesce(InboundEvent.routed_at, InboundEvent.first_failed_at, InboundEvent.received_at)
    route_end = func.coalesce(InboundRoute.finished_at, InboundRoute.created_at)
    delivery_end = func.coalesce(Delivery.finished_at, Delivery.send_started_at, Delivery.created_at)
    return {
        ("event", _NO_CLASS): _count(
            session, InboundEvent, in_states("inbound_events", "dead"), _is_kept(InboundEvent.id, event_end)
        ),
        ("message", _NO_CLASS): _count(
            session, InboundRoute, in_states("inbound_routes", "dead"), _is_kept(InboundRoute.event_id, route_end)
        ),
        **_by_class(
            session,
            "delivery",
            Delivery.error_class,
            or_(in_states("deliveries", "dead"), in_states("deliveries", "held")),
            _is_kept(Delivery.id, delivery_end),
        ),
    }


def deliveries(session: Session, _now: int) -> Samples:
    found = select(Delivery.state, func.count()).where(in_states("deliveries", *_SHOWN_STATES)).group_by(Delivery.state)
    counts = _counts(session, found)
    return {(state,): counts.get(state, 0) for state in _SHOWN_STATES}


def missed_runs(session: Session, _now: int) -> Samples:
    """Missed occurrences of the series with the most. A claim may still win over such an end, so this may go down."""
    missed = (
        select(TaskRun.series_id, func.count().label("missed"))
        .where(TaskRun.outcome == "missed")
        .group_by(TaskRun.series_id)
        .order_by(func.count().desc(), TaskRun.series_id)
        .limit(SERIES_SHOWN)
    )
    return {(series_id,): count for series_id, count in session.execute(missed)}


def canary_ages(session: Session, now: int) -> Samples:
    found = (
        select(Canary.worker, Canary.heard_at)
        .join(Host, Host.id == Canary.host_id)
        .where(Host.state != "down", Canary.heard_at > now - CANARY_SHOWN_MS)
    )
    return {(worker,): max(0, now - at) / 1000 for worker, at in session.execute(found)}


def tick_ages(session: Session, now: int) -> Samples:
    return {(name,): max(0, now - at) / 1000 for name, at in session.execute(select(Tick.name, Tick.claimed_at))}


def leases_held(session: Session, _now: int) -> Samples:
    """By what stands before the colon: `session` for the mutexes of sessions, `sweep.containers` for a pass."""
    counts: dict[tuple[str, ...], float] = {("session",): 0, ("sweep.containers",): 0}
    for name in session.scalars(select(Lease.name).where(Lease.expires_at > 0)):
        kind = (name.partition(":")[0],)
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def instances_live(session: Session, _now: int) -> Samples:
    counts = dict.fromkeys(session.scalars(select(Host.id).where(Host.state != "down")), 0)
    live = select(Instance.host_id, func.count()).where(Instance.ended_at.is_(None)).group_by(Instance.host_id)
    counts.update(_counts(session, live))
    return {(host_id,): count for host_id, count in counts.items()}


def hosts_by_state(session: Session, _now: int) -> Samples:
    counts = _counts(session, select(Host.state, func.count()).group_by(Host.state))
    return {(state,): counts.get(state, 0) for state in HOST_STATES}


def fold_age(session: Session, now: int) -> Samples:
    mark = session.execute(select(func.max(Fold.mark_ms))).scalar()
    # Before the first fold nothing is behind, since nothing was counted.
    return {} if mark is None else {(): max(0, now - mark) / 1000}


GAUGES: dict[str, Callable[[Session, int], Samples]] = {
    "nanotasks_build_info": build_info,
    "nanotasks_oldest_due_seconds": oldest_due,
    "nanotasks_retrying": retrying,
    "nanotasks_dead": dead,
    "nanotasks_deliveries": deliveries,
    "nanotasks_missed_runs": missed_runs,
    "nanotasks_canary_age_seconds": canary_ages,
    "nanotasks_tick_age_seconds": tick_ages,
    "nanotasks_leases": leases_held,
    "nanotasks_instances": instances_live,
    "nanotasks_hosts": hosts_by_state,
    "nanotasks_fold_age_seconds": fold_age,
}


def _is_kept(target: Any, ended_at: Any) -> ColumnElement[bool]:
    """Not put aside by an operator since it ended, as `nanotasks dead list` shows it."""
    return ~exists().where(AuditEntry.target == target, AuditEntry.action == _DISCARD, AuditEntry.at >= ended_at)


def _by_class(session: Session, kind: str, error_class: Any, *conditions: Any) -> dict[tuple[str, ...], float]:
    counts: dict[tuple[str, ...], float] = {(kind, word): 0 for word in ERROR_CLASSES}
    found = select(func.coalesce(error_class, _NO_CLASS), func.count()).where(*conditions).group_by(error_class)
    counts.update({(kind, word): count for word, count in session.execute(found)})
    return counts


def _count(session: Session, model: type[Base], *conditions: Any) -> int:
    return session.execute(select(func.count()).select_from(model).where(*conditions)).scalar_one()


def _counts(session: Session, query: Select[str, int]) -> dict[str, int]:
    return dict(session.execute(query).all())


def _least(session: Session, column: Any, *conditions: Any) -> int | None:
    found: int | None = session.execute(select(func.min(column)).where(*conditions)).scalar_one()
    return found
