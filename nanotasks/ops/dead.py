"""Everything that was given up, in one list, and what an operator does about it (promise I8).

    event      a message that could not be routed                       retry routes it anew
    message    one that an agent got, and that ended without an answer  retry gives it to that agent again
    delivery   a reply that was given up, or is held because nobody     retry sends it again, in the order of its lane
               knows whether it arrived

Discarding leaves the row as it is and takes it off the list: the audit row says so, and by whom. Only a delivery that
is held becomes dead by it. An entry that ends a second time, after a retry, is listed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.meta import AuditEntry
from nanotasks.deliver import operator as deliveries
from nanotasks.errors import NotFoundError, UsageError
from nanotasks.intake.operator import ask_again, route_again

KINDS = ("event", "message", "delivery")
DISCARD = "dead.discard"
RETRY = "dead.retry"
BATCH = 100
_FEW = 6


@dataclass(frozen=True)
class Wanted:
    """Which of the dead; what is None or empty does not matter. Times in milliseconds UTC, `until_ms` exclusive."""

    kinds: Sequence[str] = KINDS
    error_class: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    group_id: str | None = None
    session_id: str | None = None
    id_begins: str | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Wanted()


@dataclass(frozen=True)
class Dead:
    """One entry of the list. `id` is the event's or the delivery's; `since` in milliseconds."""

    kind: str
    id: str
    state: str
    place: str
    error_class: str | None
    reason: str | None
    since: int
    session: str | None
    group: str | None
    host: str | None

    @property
    def row(self) -> dict[str, Any]:
        """As it is listed."""
        return {
            "kind": self.kind,
            "id": self.id,
            "state": self.state,
            "place": self.place,
            "class": self.error_class,
            "reason": self.reason,
            "since_at": self.since,
            "session": self.session,
            "group": self.group,
        }


def find(session: Session, wanted: Wanted, limit: int = 0) -> list[Dead]:
    """The entries, the newest first; at most `limit` of them unless that is 0."""
    found: list[Dead] = []
    # A failed routing has no class, and no group or session yet.
    if "event" in wanted.kinds and not (wanted.error_class or wanted.group_id or wanted.session_id):
        found += _events(session, wanted, limit)
    if "message" in wanted.kinds and not wanted.error_class:
        found += _messages(session, wanted, limit)
    if "delivery" in wanted.kinds:
        found += _deliveries(session, wanted, limit)
    found.sort(key=lambda one: (-one.since, one.id))
    return found[:limit] if limit else found


def one(session: Session, text: str) -> Dead:
    """The entry with this id, or with the only id that begins so. Raises `NotFoundError` and `UsageError`."""
    found = find(session, Wanted(id_begins=text)) if text else []
    fitting = [entry for entry in found if entry.id == text] or found
    if not fitting:
        raise NotFoundError(
            f"Nothing dead is called {text!r}.", fix="`nanotasks dead list` shows what there is, `explain` the others."
        )
    if len({entry.id for entry in fitting}) > 1:
        names = ", ".join(sorted(entry.id for entry in fitting)[:_FEW])
        raise UsageError(f"{text!r} fits several.", fix=f"Give more of the id: {names}.")
    return fitting[0]


def retry(session: Session, entry: Dead) -> list[tuple[Any, ...]]:
    """Try it once more, in the caller's transaction; what to ring after the commit. Raises `ConflictError`."""
    if entry.kind == "delivery":
        delivery = session.get_one(Delivery, entry.id)
        deliveries.retry(session, delivery)
        if delivery.state == "retrying":
            return [("attempt", entry.id, entry.host, delivery.attempts + 1)]
        return [("deliver", entry.session, entry.host)]
    event = session.get_one(InboundEvent, entry.id)
    if entry.kind == "message":
        return [("append", one_session, _host_of(session, one_session)) for one_session in ask_again(session, event)]
    route_again(session, event)
    return [("route", event.channel_type, event.platform_id)]


def discard(session: Session, entry: Dead) -> list[tuple[Any, ...]]:
    """What a discarded entry still needs, besides its audit row; what to ring after the commit."""
    if entry.kind == "delivery" and entry.state == "held":
        deliveries.discard(session, session.get_one(Delivery, entry.id))
        return [("deliver", entry.session, entry.host)]
    return []


def _host_of(session: Session, session_id: str) -> str | None:
    route = select(AgentGroup.host_id).join(InboundRoute, InboundRoute.agent_group_id == AgentGroup.id)
    return session.scalars(route.where(InboundRoute.session_id == session_id).limit(1)).first()


def _within(wanted: Wanted, at: ColumnElement[int], target: InstrumentedAttribute[str]) -> list[ColumnElement[bool]]:
    put_aside = exists().where(AuditEntry.target == target, AuditEntry.action == DISCARD, AuditEntry.at >= at)
    conditions: list[ColumnElement[bool]] = [~put_aside]
    if wanted.since_ms is not None:
        conditions.append(at >= wanted.since_ms)
    if wanted.until_ms is not None:
        conditions.append(at < wanted.until_ms)
    if wanted.id_begins:
        conditions.append(target.startswith(wanted.id_begins, autoescape=True))
    return conditions


def _events(session: Session, wanted: Wanted, limit: int) -> list[Dead]:
    at = func.coalesce(InboundEvent.routed_at, InboundEvent.first_failed_at, InboundEvent.received_at)
    query = (
        select(InboundEvent, at)
        .where(InboundEvent.state == "dead", *_within(wanted, at, InboundEvent.id))
        .order_by(at.desc())
        .limit(limit or None)
    )
    return [
        Dead("event", event.id, "dead", _place(event), None, event.error, since, None, None, None)
        for event, since in session.execute(query)
    ]


def _messages(session: Session, wanted: Wanted, limit: int) -> list[Dead]:
    at = func.coalesce(InboundRoute.finished_at, InboundRoute.created_at)
    query = (
        select(InboundRoute, InboundEvent, AgentGroup, at)
        .join(InboundEvent, InboundEvent.id == InboundRoute.event_id)
        .join(AgentGroup, AgentGroup.id == InboundRoute.agent_group_id)
        .where(InboundRoute.state == "dead", *_within(wanted, at, InboundEvent.id))
        .where(*_of(wanted, InboundRoute.agent_group_id, InboundRoute.session_id))
        .order_by(at.desc())
        .limit(limit or None)
    )
    return [
        Dead(
            "message",
            event.id,
            "dead",
            _place(event),
            None,
            route.error,
            since,
            route.session_id,
            group.folder,
            group.host_id,
        )
        for route, event, group, since in session.execute(query)
    ]


def _deliveries(session: Session, wanted: Wanted, limit: int) -> list[Dead]:
    at = func.coalesce(Delivery.finished_at, Delivery.send_started_at, Delivery.created_at)
    query = (
        select(Delivery, AgentGroup.folder, at)
        .join(AgentGroup, AgentGroup.id == Delivery.agent_group_id)
        .where(or_(Delivery.state == "dead", Delivery.state == "held"), *_within(wanted, at, Delivery.id))
        .where(*_of(wanted, Delivery.agent_group_id, Delivery.session_id))
        .order_by(at.desc())
        .limit(limit or None)
    )
    if wanted.error_class:
        query = query.where(Delivery.error_class == wanted.error_class)
    return [
        Dead(
            "delivery",
            delivery.id,
            delivery.state,
            f"{delivery.channel_type or ''}:{delivery.platform_id or ''}",
            delivery.error_class,
            delivery.error_text,
            since,
            delivery.session_id,
            folder,
            delivery.host_id,
        )
        for delivery, folder, since in session.execute(query)
    ]


def _of(
    wanted: Wanted, group: InstrumentedAttribute[str], session: InstrumentedAttribute[str]
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.group_id:
        conditions.append(group == wanted.group_id)
    if wanted.session_id:
        conditions.append(session == wanted.session_id)
    return conditions


def _place(event: InboundEvent) -> str:
    return f"{event.channel_type}:{event.platform_id}"
