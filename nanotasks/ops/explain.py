"""The story of one message, told from the rows of the central database alone.

What is known of it stands in the intake log, its routes, the sessions and instances that served it, the deliveries
that answer it with their attempts, and what operators did to any of these. Nothing is opened and nobody is asked, so
the story is the same from every process, and can be told when everything is down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.meta import AuditEntry
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.errors import NotFoundError, UsageError

Entry: TypeAlias = dict[str, Any]

_SHOWN = 6
_MOVING = ("pending", "sending", "retrying", "parked")


def explain(session: Session, text: str) -> Entry:
    """Everything about the message that `text` names: `{message, timeline, next}`.

    `text` is the id of an event, a platform's message id, the id of an inbound row, of an outbound message, or of a
    delivery; ids of events and deliveries may be cut short. `timeline` has `{at, what, text, …ids}` in the order of
    time, `next` is `[{what, at}]`: one for each route or delivery that is not at its end, or one that tells the end.
    Raises `NotFoundError`, and `UsageError` where several messages have that name.
    """
    event, delivery = _resolve(session, text)
    story = _Story(session)
    if event is not None:
        story.tell_event(event)
    elif delivery is not None:
        story.tell_delivery(delivery)
    return story.whole(_message(event, delivery))


def _resolve(session: Session, text: str) -> tuple[InboundEvent | None, Delivery | None]:
    events = session.scalars(
        select(InboundEvent)
        .outerjoin(InboundRoute, InboundRoute.event_id == InboundEvent.id)
        .where(or_(InboundEvent.id == text, InboundEvent.platform_message_id == text, InboundRoute.inbound_id == text))
        .distinct()
        .limit(_SHOWN)
    ).all()
    if not events and text:
        events = session.scalars(
            select(InboundEvent).where(InboundEvent.id.startswith(text, autoescape=True)).limit(_SHOWN)
        ).all()
    if len(events) > 1:
        raise UsageError(
            f"{text!r} names several messages.",
            fix=f"Give the id of one: {', '.join(sorted(event.id for event in events))}.",
        )
    if events:
        return events[0], None
    deliveries = _deliveries_named(session, text)
    if len(deliveries) > 1:
        raise UsageError(
            f"{text!r} names several deliveries.", fix=f"Give one: {', '.join(sorted(one.id for one in deliveries))}."
        )
    if not deliveries:
        raise NotFoundError(
            f"There is no message {text!r}.",
            fix="Give the id of an event (`nanotasks intake list`), of a delivery (`nanotasks deliveries list`), or the"
            " platform's own id of a message.",
        )
    (delivery,) = deliveries
    event = session.scalars(
        select(InboundEvent)
        .join(InboundRoute, InboundRoute.event_id == InboundEvent.id)
        .where(InboundRoute.session_id == delivery.session_id, InboundRoute.inbound_id == delivery.in_reply_to)
    ).first()
    return event, delivery


def _deliveries_named(session: Session, text: str) -> Sequence[Delivery]:
    named = select(Delivery).where(or_(Delivery.id == text, Delivery.message_out_id == text)).limit(_SHOWN)
    found = session.scalars(named).all()
    if found or not text:
        return found
    return session.scalars(select(Delivery).where(Delivery.id.startswith(text, autoescape=True)).limit(_SHOWN)).all()


def _message(event: InboundEvent | None, delivery: Delivery | None) -> Entry:
    if event is None:
        assert delivery is not None
        return {
            "event": None,
            "chat": f"{delivery.channel_type}:{delivery.platform_id}",
            "sender": None,
            "text": _field(delivery.content, "text"),
            "state": delivery.state,
        }
    return {
        "event": event.id,
        "message_id": event.platform_message_id,
        "chat": f"{event.channel_type}:{event.platform_id}",
        "sender": _field(event.content, "senderName") or _field(event.content, "senderId"),
        "text": _field(event.content, "text"),
        "state": event.state,
    }


def _field(content: str, name: str) -> str | None:
    try:
        value = json.loads(content)
    except ValueError:
        return None
    found = value.get(name) if isinstance(value, dict) else None
    return None if found is None else str(found)


class _Story:
    def __init__(self, session: Session) -> None:
        self._session = session
        self._entries: list[Entry] = []
        self._next: list[Entry] = []
        self._ids: set[str] = set()
        self._last = ""

    def whole(self, message: Entry) -> Entry:
        """The story, with what operators did to anything in it."""
        self._entries += self._audit()
        return {
            "message": message,
            "timeline": sorted(self._entries, key=lambda entry: entry["at"]),
            "next": self._next or [{"what": self._last, "at": None}],
        }

    def tell_event(self, event: InboundEvent) -> None:
        self._ids.add(event.id)
        self._add(event.received_at, "accepted", f"accepted from {event.channel_type}:{event.platform_id}")
        if event.state == "pending":
            self._waits_to_be_routed(event)
        elif event.state == "dead":
            self._add(event.routed_at or event.first_failed_at or event.received_at, "dead", f"given up: {event.error}")
            self._last = f"nothing: it could not be routed; `nanotasks intake retry {event.id}` tries it again"
        drop = self._session.scalars(select(Drop).where(Drop.event_id == event.id)).first()
        if drop is not None:
            self._add(drop.created_at, "dropped", f"dropped: {drop.reason}", reason=drop.reason)
            self._last = f"nothing: it was dropped ({drop.reason}); `nanotasks intake retry {event.id}` routes it anew"
        rows = self._session.execute(
            select(InboundRoute, AgentSession, AgentGroup)
            .join(AgentSession, AgentSession.id == InboundRoute.session_id)
            .join(AgentGroup, AgentGroup.id == InboundRoute.agent_group_id)
            .where(InboundRoute.event_id == event.id)
            .order_by(InboundRoute.id)
        )
        for route, agent_session, group in rows:
            self._tell_route(route, agent_session, group)

    def tell_delivery(self, delivery: Delivery) -> None:
        """A delivery and its attempts."""
        ids = {"delivery": delivery.id, "session": delivery.session_id}
        self._ids.add(delivery.id)
        where = f"{delivery.channel_type or 'the host'}:{delivery.platform_id or ''}"
        self._add(delivery.created_at, "written", f"the agent wrote #{delivery.seq} to {where}", **ids)
        attempts = self._session.scalars(
            select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == delivery.id).order_by(DeliveryAttempt.number)
        )
        for attempt in attempts:
            self._tell_attempt(attempt, ids)
        if delivery.finished_at is not None and delivery.state in {"delivered", "dead"}:
            why = f": {delivery.error_text}" if delivery.state == "dead" and delivery.error_text else ""
            self._add(delivery.finished_at, delivery.state, f"#{delivery.seq} is {delivery.state}{why}", **ids)
        if delivery.projected_at is not None:
            self._add(delivery.projected_at, "recorded", f"the session knows of it ({delivery.state})", **ids)
        self._after_delivery(delivery)

    def _tell_attempt(self, attempt: DeliveryAttempt, ids: Entry) -> None:
        details = {
            **ids,
            "number": attempt.number,
            "worker": attempt.worker,
            "task": attempt.task_id,
            "error_class": attempt.error_class,
        }
        self._add(attempt.started_at, "attempt", f"attempt {attempt.number} begins", **details)
        if attempt.finished_at is not None:
            error = f" ({attempt.error_text})" if attempt.error_text else ""
            self._add(attempt.finished_at, "outcome", f"attempt {attempt.number}: {attempt.outcome}{error}", **details)

    def _after_delivery(self, delivery: Delivery) -> None:
        retry = f"`nanotasks deliveries update {delivery.id} --state retry`"
        number = delivery.attempts + 1
        if delivery.state == "sending":
            self._will(f"attempt {delivery.attempts} of the delivery {delivery.id} is under way", None)
        elif delivery.state in _MOVING:
            hold = " (it holds its lane no more)" if delivery.state == "parked" else ""
            self._will(f"attempt {number} of the delivery {delivery.id}{hold}", delivery.next_attempt_at)
        elif delivery.state == "held":
            self._will(
                f"an operator decides whether {delivery.id}, which may have arrived, is sent again: {retry}", None
            )
        elif delivery.state == "dead":
            self._last = f"nothing: the reply was given up; {retry} sends it again"
        elif delivery.projected_at is None:
            self._will(f"{delivery.host_id} records in the session that {delivery.id} was delivered", None)
        else:
            self._last = self._last or "nothing: it was delivered"

    def _tell_route(self, route: InboundRoute, agent_session: AgentSession, group: AgentGroup) -> None:
        ids = {"session": route.session_id, "group": group.folder, "inbound": route.inbound_id}
        self._ids.add(route.session_id)
        how = "" if route.trigger else ", as context"
        self._add(route.created_at, "routed", f"routed to {group.folder}, session {route.session_id}{how}", **ids)
        if route.appended_at is not None:
            self._add(route.appended_at, "appended", f"appended for the agent on {group.host_id}", **ids)
        self._tell_instances(route)
        replies = self._session.scalars(
            select(Delivery)
            .where(Delivery.session_id == route.session_id, Delivery.in_reply_to == route.inbound_id)
            .order_by(Delivery.seq)
        )
        for delivery in replies:
            self.tell_delivery(delivery)
        if route.finished_at is not None:
            error = f": {route.error}" if route.error else ""
            self._add(route.finished_at, route.state, f"{route.state}{error}", **ids)
        self._after_route(route, agent_session, group)

    def _tell_instances(self, route: InboundRoute) -> None:
        until = route.finished_at or now_ms()
        served = self._session.scalars(
            select(Instance).where(
                Instance.session_id == route.session_id,
                Instance.started_at <= until,
                or_(Instance.ended_at.is_(None), Instance.ended_at >= route.created_at),
            )
        )
        for instance in served:
            ids = {"session": route.session_id, "instance": instance.id, "host": instance.host_id}
            self._add(instance.started_at, "started", f"agent {instance.id} started on {instance.host_id}", **ids)
            if instance.ended_at is not None and instance.ended_at <= until:
                self._add(instance.ended_at, "ended", f"agent {instance.id} ended: {instance.end_reason}", **ids)

    def _after_route(self, route: InboundRoute, agent_session: AgentSession, group: AgentGroup) -> None:
        if route.state == "pending":
            trouble = f"; the last try failed: {agent_session.append_error}" if agent_session.append_error else ""
            self._will(f"{self._host(group)} appends it to the session{trouble}", None)
        elif route.state == "appended":
            self._will(*self._waits_for_the_agent(route, agent_session, group))
        elif route.state == "dead":
            again = f"`nanotasks intake retry {route.event_id}` asks again"
            self._last = f"nothing: it ended without an answer ({route.error}); {again}"
        else:
            self._last = f"nothing: it is {route.state}" if not self._last else self._last

    def _waits_for_the_agent(
        self, route: InboundRoute, agent_session: AgentSession, group: AgentGroup
    ) -> tuple[str, int | None]:
        live = self._session.scalars(
            select(Instance).where(Instance.session_id == route.session_id, Instance.ended_at.is_(None))
        ).first()
        if live is not None:
            return f"agent {live.id} works on it, or will", None
        if agent_session.wake_error:
            return f"{self._host(group)} starts the agent; the last try: {agent_session.wake_error}", (
                agent_session.wake_retry_at
            )
        return f"{self._host(group)} starts the agent", agent_session.next_due_at or None

    def _waits_to_be_routed(self, event: InboundEvent) -> None:
        failed = f"; it failed {event.tries} times: {event.error}" if event.tries else ""
        self._will(f"a worker routes it{failed}", event.next_try_at)

    def _host(self, group: AgentGroup) -> str:
        if group.host_id is None:
            return "a host, once one is up,"
        host = self._session.get(Host, group.host_id)
        return f"{group.host_id} ({host.state if host else 'unknown'})" if not host or host.state != "up" else host.id

    def _audit(self) -> Iterator[Entry]:
        entries = self._session.scalars(select(AuditEntry).where(AuditEntry.target.in_(sorted(self._ids))))
        for entry in entries:
            yield {
                "at": entry.at,
                "what": "operator",
                "text": f"{entry.actor}: {entry.action} {entry.target}",
                "audit": entry.id,
            }

    def _add(self, at: int, what: str, text: str, **ids: Any) -> None:
        self._entries.append({"at": at, "what": what, "text": text, **ids})

    def _will(self, what: str, at: int | None) -> None:
        self._next.append({"what": what, "at": at})
