"""Everything that waits for another try, in one list: what, why, which attempt, when next; and its history.

    intake     a message whose routing failed                  an attempt is a pass over its chat
    append     a session whose file could not be written to    an attempt is an append; only the last error is kept
    wake       a session whose agent could not be started      an attempt is a start
    delivery   a reply that could not be sent, or is parked    attempts are rows, each with its Celery task
    run        a run of a scheduled task that failed           attempts are rows, each a turn of the agent

Attempts of `intake` and `wake` are rows too (`state_changes`), written when one failed. `now` makes an entry due and
rings its signal; `cancel` gives it up, with the consequences of any other end: its chat or its agent is told. What is
at work in this moment is not changed, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from nanotasks.central.base import in_states
from nanotasks.central.changes import StateChange
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.engine import rows_changed
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.series import TaskAttempt, TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver import operator as deliveries
from nanotasks.errors import ConflictError, NotFoundError, UsageError
from nanotasks.intake import operator as intake
from nanotasks.intake.closed import end_unfinished
from nanotasks.ops.dead import DISCARD
from nanotasks.schedule import operator as schedule
from nanotasks.settings import settings

KINDS = ("intake", "append", "wake", "delivery", "run")
BATCH = 100
SET_ASIDE = "Your message was set aside, because it could not be given to the assistant. Please send it again later."
GIVEN_UP = "an operator gave it up"
_GAVE_UP = f"Given up: {GIVEN_UP}."
_FAILED = {"intake": "message.retrying", "wake": "wake.failed"}
_FEW = 6
Signal = tuple[Any, ...]


@dataclass(frozen=True)
class Wanted:
    """Which entries; what is None or empty does not matter. Times in milliseconds UTC, of the first failure."""

    kinds: Sequence[str] = KINDS
    error_class: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    group_id: str | None = None
    session_id: str | None = None


@dataclass(frozen=True)
class Waiting:
    """One entry. `of` is the last attempt there may be, None where time and not their number ends them."""

    kind: str
    id: str
    state: str
    place: str
    error_class: str | None
    error: str | None
    attempt: int | None
    of: int | None
    next_at: int | None
    since_at: int | None
    group: str | None = None
    session: str | None = None
    host: str | None = None
    worker: str | None = None
    task_id: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """As it is listed."""
        return {
            "kind": self.kind,
            "id": self.id,
            "state": self.state,
            "place": self.place,
            "class": self.error_class,
            "error": self.error,
            "attempt": self.attempt,
            "of": self.of,
            "next_at": self.next_at,
            "since_at": self.since_at,
            "group": self.group,
            "session": self.session,
            "worker": self.worker,
            "task_id": self.task_id,
        }


@dataclass(frozen=True)
class Source:
    """One kind of entries: finding them, their attempts, and the two verbs."""

    find: Callable[[Session, Wanted, int, str | None], list[Waiting]]
    history: Callable[[Session, Waiting], list[dict[str, Any]]]
    now: Callable[[Session, Waiting], list[Signal]]
    cancel: Callable[[Session, Waiting], list[Signal]]


def find(session: Session, wanted: Wanted, limit: int = 0) -> list[Waiting]:
    """The entries, the next one first; at most `limit` of them unless that is 0."""
    found: list[Waiting] = []
    for kind in wanted.kinds:
        found += SOURCES[kind].find(session, wanted, limit, None)
    found.sort(key=lambda one: (one.next_at is None, one.next_at or 0, one.id))
    return [_with_attempt(session, one) for one in (found[:limit] if limit else found)]


def one(session: Session, text: str, kind: str | None = None) -> Waiting:
    """The entry with this id, or the only one whose id begins so, or one of whose attempts was this Celery task.

    Raises `NotFoundError` and `UsageError`.
    """
    fitting: list[Waiting] = []
    for name in dict.fromkeys((text, *_subjects_of_task(session, text))):
        for source in (SOURCES[one] for one in KINDS if name and kind in {None, one}):
            fitting += source.find(session, Wanted(), _FEW, name)
    fitting = [entry for entry in fitting if entry.id == text] or fitting
    if not fitting:
        raise NotFoundError(
            f"Nothing that waits for another try is called {text!r}.",
            fix="`nanotasks retry list` shows what does, `nanotasks dead list` what was given up.",
        )
    if len({(entry.kind, entry.id) for entry in fitting}) > 1:
        names = ", ".join(sorted(f"{entry.id} ({entry.kind})" for entry in fitting)[:_FEW])
        raise UsageError(f"{text!r} fits several.", fix=f"Give more of the id, or its --kind: {names}.")
    return _with_attempt(session, fitting[0])


def history(session: Session, entry: Waiting) -> list[dict[str, Any]]:
    """Its attempts so far, where each is a row."""
    return SOURCES[entry.kind].history(session, entry)


def make_due(session: Session, entry: Waiting) -> list[Signal]:
    """Have it tried now, in the caller's transaction; what to ring after the commit. Raises `ConflictError`."""
    return SOURCES[entry.kind].now(session, entry)


def action_of_giving_up(entry: Waiting) -> str:
    """What the audit log calls it: a delivery that is dead already is taken off the list of the dead."""
    return DISCARD if entry.kind == "delivery" and entry.state == "dead" else "retry.cancel"


def give_up(session: Session, entry: Waiting) -> list[Signal]:
    """Give it up, in the caller's transaction; what to ring after the commit. Raises `ConflictError`."""
    return SOURCES[entry.kind].cancel(session, entry)


def _with_attempt(session: Session, entry: Waiting) -> Waiting:
    """With the worker and the Celery task of its last attempt, where these are known."""
    attempts = SOURCES[entry.kind].history(session, entry)
    if not attempts:
        return entry
    return replace(entry, worker=attempts[-1].get("worker"), task_id=attempts[-1].get("task_id"))


def _subjects_of_task(session: Session, text: str) -> list[str]:
    """The deliveries, events and sessions of which an attempt was made in this Celery task."""
    if not text:
        return []
    deliveries_ = select(DeliveryAttempt.delivery_id).where(DeliveryAttempt.task_id.startswith(text, autoescape=True))
    changes = select(StateChange.subject).where(
        StateChange.name.in_(_FAILED.values()), StateChange.detail.contains(f'"task":"{text}', autoescape=True)
    )
    return [name for query in (deliveries_, changes) for name in session.scalars(query.distinct().limit(_FEW))]


def _noted(session: Session, entry: Waiting) -> list[dict[str, Any]]:
    """The failures of an event or of a session's starts, since it first failed."""
    query = select(StateChange).where(StateChange.name == _FAILED[entry.kind], StateChange.subject == entry.id)
    query = query.where(StateChange.at >= (entry.since_at or 0))
    query = query.order_by(StateChange.id.desc()).limit(max((entry.attempt or 1) - 1, 0))
    found = [(one.at, json.loads(one.detail)) for one in reversed(session.scalars(query).all())]
    return [
        {
            "number": detail.get("tries"),
            "started_at": None,
            "finished_at": at,
            "outcome": "failed",
            "error": detail.get("error"),
            "worker": detail.get("worker"),
            "task_id": detail.get("task"),
        }
        for at, detail in found
    ]


def _none_noted(_session: Session, _entry: Waiting) -> list[dict[str, Any]]:
    return []


def _narrowed(
    wanted: Wanted,
    name: str | None,
    id_column: InstrumentedAttribute[str],
    since: ColumnElement[Any] | InstrumentedAttribute[Any],
    group: InstrumentedAttribute[str] | None = None,
    session: InstrumentedAttribute[str] | None = None,
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if name is not None:
        conditions.append(or_(id_column == name, id_column.startswith(name, autoescape=True)))
    if wanted.since_ms is not None:
        conditions.append(since >= wanted.since_ms)
    if wanted.until_ms is not None:
        conditions.append(since < wanted.until_ms)
    if wanted.group_id and group is not None:
        conditions.append(group == wanted.group_id)
    if wanted.session_id and session is not None:
        conditions.append(session == wanted.session_id)
    return conditions


# Messages on their way in


def _find_intake(session: Session, wanted: Wanted, limit: int, name: str | None) -> list[Waiting]:
    if wanted.error_class or wanted.group_id or wanted.session_id:
        return []  # a routing that failed has no class, and no group or session yet
    query = (
        select(InboundEvent)
        .where(InboundEvent.next_try_at.is_not(None), in_states("inbound_events", "pending"))
        .where(*_narrowed(wanted, name, InboundEvent.id, InboundEvent.first_failed_at))
        .order_by(InboundEvent.next_try_at)
        .limit(limit or None)
    )
    return [
        Waiting(
            "intake",
            event.id,
            "pending",
            f"{event.channel_type}:{event.platform_id}",
            None,
            event.error,
            event.tries + 1,
            settings().event_max_tries,
            event.next_try_at,
            event.first_failed_at,
        )
        for event in session.scalars(query)
    ]


def _intake_now(session: Session, entry: Waiting) -> list[Signal]:
    event = session.get_one(InboundEvent, entry.id)
    intake.try_now(session, event)
    return [("route", event.channel_type, event.platform_id)]


def _intake_cancel(session: Session, entry: Waiting) -> list[Signal]:
    event = session.get_one(InboundEvent, entry.id)
    told = intake.give_up(session, event, GIVEN_UP)
    rings: list[Signal] = [("route", event.channel_type, event.platform_id)]
    return [*rings, ("deliver", told[0], _host_of_group(session, told[1]))] if told else rings


# Sessions whose agent does not start


def _find_wake(session: Session, wanted: Wanted, limit: int, name: str | None) -> list[Waiting]:
    if wanted.error_class:
        return []
    waiting = (
        select(func.min(InboundRoute.created_at))
        .where(InboundRoute.session_id == AgentSession.id, in_states("inbound_routes", "pending", "appended"))
        .scalar_subquery()
    )
    since = func.coalesce(waiting, AgentSession.last_active, AgentSession.created_at)
    query = (
        select(AgentSession, AgentGroup, since)
        .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
        .where(AgentSession.wake_failures > 0, AgentSession.wake_retry_at.is_not(None), AgentSession.status == "active")
        .where(*_narrowed(wanted, name, AgentSession.id, since, AgentSession.agent_group_id, AgentSession.id))
        .order_by(AgentSession.wake_retry_at)
        .limit(limit or None)
    )
    return [
        Waiting(
            "wake",
            found.id,
            "waiting",
            group.folder,
            None,
            found.wake_error,
            found.wake_failures + 1,
            None,
            found.wake_retry_at,
            at,
            group.folder,
            found.id,
            group.host_id,
        )
        for found, group, at in session.execute(query)
    ]


def _wake_now(session: Session, entry: Waiting) -> list[Signal]:
    _wake_at_once(session, entry.id)
    return [("wake", entry.id, entry.host)]


def _wake_cancel(session: Session, entry: Waiting) -> list[Signal]:
    """What waits for the agent ends, and its chats are told; the session stays, and the next message tries anew.

    The wake that is rung takes the rows out of the session's file, and forgets the failures once nothing is due.
    """
    told = end_unfinished(session, entry.id, why=GIVEN_UP, notice=SET_ASIDE)
    due = select(TaskRun).where(
        TaskRun.session_id == entry.id, in_states("task_runs", "planned", "retrying"), TaskRun.due_at <= now_ms()
    )
    for run in session.scalars(due).all():
        schedule.give_up(session, run, _GAVE_UP)
    _wake_at_once(session, entry.id)
    rings: list[Signal] = [("wake", entry.id, entry.host)]
    return [("deliver", entry.id, entry.host), *rings] if told else rings


def _wake_at_once(session: Session, session_id: str) -> None:
    waits = (AgentSession.id == session_id, AgentSession.wake_failures > 0)
    if rows_changed(session, update(AgentSession).where(*waits).values(wake_retry_at=now_ms())) != 1:
        raise ConflictError(f"The agent of the session {session_id} was started meanwhile.", fix="Look at it again.")


# Sessions whose file cannot be written to


def _find_append(session: Session, wanted: Wanted, limit: int, name: str | None) -> list[Waiting]:
    if wanted.error_class:
        return []
    since = (
        select(func.min(InboundRoute.created_at))
        .where(InboundRoute.session_id == AgentSession.id, in_states("inbound_routes", "pending"))
        .scalar_subquery()
    )
    query = (
        select(AgentSession, AgentGroup, since)
        .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
        .where(AgentSession.append_error.is_not(None), AgentSession.status == "active", since.is_not(None))
        .where(*_narrowed(wanted, name, AgentSession.id, since, AgentSession.agent_group_id, AgentSession.id))
        .limit(limit or None)
    )
    return [
        Waiting(
            kind="append",
            id=found.id,
            state="pending",
            place=group.folder,
            error_class=None,
            error=found.append_error,
            attempt=None,
            of=None,
            next_at=None,
            since_at=at,
            group=group.folder,
            session=found.id,
            host=group.host_id,
        )
        for found, group, at in session.execute(query)
    ]


def _append_now(_session: Session, entry: Waiting) -> list[Signal]:
    return [("append", entry.id, entry.host)]


def _append_cancel(session: Session, entry: Waiting) -> list[Signal]:
    told = end_unfinished(session, entry.id, why=GIVEN_UP, notice=SET_ASIDE, states=("pending",))
    session.execute(update(AgentSession).where(AgentSession.id == entry.id).values(append_error=None))
    return [("deliver", entry.id, entry.host)] if told else []


# Deliveries


_RETRIED = (
    or_(Delivery.state == "retrying", Delivery.state == "parked"),
    # This says which partial index fits.
    in_states("deliveries", "pending", "sending", "retrying", "parked"),
)


def _find_deliveries(session: Session, wanted: Wanted, limit: int, name: str | None) -> list[Waiting]:
    since = func.coalesce(Delivery.first_attempt_at, Delivery.created_at)
    query = (
        select(Delivery, AgentGroup.folder, since)
        .join(AgentGroup, AgentGroup.id == Delivery.agent_group_id)
        .where(*(_RETRIED if name is None else ()))
        .where(*_narrowed(wanted, name, Delivery.id, since, Delivery.agent_group_id, Delivery.session_id))
        .order_by(Delivery.next_attempt_at)
        .limit(limit or None)
    )
    if wanted.error_class:
        query = query.where(Delivery.error_class == wanted.error_class)
    return [
        Waiting(
            "delivery",
            found.id,
            found.state,
            f"{found.channel_type or ''}:{found.platform_id or ''}",
            found.error_class,
            found.error_text,
            found.attempts + 1,
            None,
            found.next_attempt_at,
            at,
            folder,
            found.session_id,
            found.host_id,
        )
        for found, folder, at in session.execute(query)
    ]


def _delivery_history(session: Session, entry: Waiting) -> list[dict[str, Any]]:
    attempts = select(DeliveryAttempt).where(DeliveryAttempt.delivery_id == entry.id)
    return [
        {
            "number": one.number,
            "started_at": one.started_at,
            "finished_at": one.finished_at,
            "outcome": one.outcome,
            "error": one.error_text,
            "worker": one.worker,
            "task_id": one.task_id,
        }
        for one in session.scalars(attempts.order_by(DeliveryAttempt.number))
    ]


def _delivery_now(session: Session, entry: Waiting) -> list[Signal]:
    found = session.get_one(Delivery, entry.id)
    deliveries.retry(session, found)
    if found.state == "pending":
        return [("deliver", entry.session, entry.host)]
    return [("attempt", entry.id, entry.host, found.attempts + 1)]


def _delivery_cancel(session: Session, entry: Waiting) -> list[Signal]:
    if entry.state == "dead":
        return []
    deliveries.discard(session, session.get_one(Delivery, entry.id))
    return [("deliver", entry.session, entry.host)]


# Runs of scheduled tasks


def _find_runs(session: Session, wanted: Wanted, limit: int, name: str | None) -> list[Waiting]:
    query = (
        select(TaskRun, TaskSeries, AgentGroup)
        .join(TaskSeries, TaskSeries.id == TaskRun.series_id)
        .join(AgentGroup, AgentGroup.id == TaskSeries.agent_group_id)
        .where(*((in_states("task_runs", "claimed", "retrying"), TaskRun.state == "retrying") if name is None else ()))
        .where(*_narrowed(wanted, name, TaskRun.id, TaskRun.claimed_at, TaskSeries.agent_group_id, TaskRun.session_id))
        .order_by(TaskRun.due_at)
        .limit(limit or None)
    )
    if wanted.error_class:
        query = query.where(TaskRun.error_class == wanted.error_class)
    return [
        Waiting(
            "run",
            run.id,
            run.state,
            series.name or series.id,
            run.error_class,
            run.error_text,
            run.attempts + 1,
            series.attempts_max,
            run.due_at,
            run.claimed_at,
            group.folder,
            run.session_id,
            group.host_id,
        )
        for run, series, group in session.execute(query)
    ]


def _run_history(session: Session, entry: Waiting) -> list[dict[str, Any]]:
    attempts = select(TaskAttempt).where(TaskAttempt.run_id == entry.id).order_by(TaskAttempt.number)
    return [
        {
            "number": one.number,
            "started_at": one.claimed_at,
            "finished_at": one.finished_at,
            "outcome": one.error_class or one.outcome,
            "error": one.error_text,
            "inbound_id": one.inbound_id,
        }
        for one in session.scalars(attempts)
    ]


def _run_now(session: Session, entry: Waiting) -> list[Signal]:
    schedule.retry(session, session.get_one(TaskRun, entry.id))
    return [("project", entry.session, entry.host)]


def _run_cancel(session: Session, entry: Waiting) -> list[Signal]:
    schedule.give_up(session, session.get_one(TaskRun, entry.id), _GAVE_UP)
    return [("project", entry.session, entry.host)]


SOURCES: dict[str, Source] = {
    "intake": Source(_find_intake, _noted, _intake_now, _intake_cancel),
    "append": Source(_find_append, _none_noted, _append_now, _append_cancel),
    "wake": Source(_find_wake, _noted, _wake_now, _wake_cancel),
    "delivery": Source(_find_deliveries, _delivery_history, _delivery_now, _delivery_cancel),
    "run": Source(_find_runs, _run_history, _run_now, _run_cancel),
}


def _host_of_group(session: Session, group_id: str) -> str | None:
    return session.scalar(select(AgentGroup.host_id).where(AgentGroup.id == group_id))


def in_order(entries: Sequence[Waiting]) -> list[Waiting]:
    """Entries as they are to be changed: what belongs to one lane in its order."""
    return sorted(entries, key=lambda entry: (entry.since_at or 0, entry.id))
