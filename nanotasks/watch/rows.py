"""What each event is read from: queries over the rows of the central database, each a range of an index on a time.

What a row tells can change later: a delivery that an operator retries loses the time of its end, and with it that
event; his action stands in the audit log. Of an attempt that failed, a later one hides whether its delivery was
parked meanwhile: it is shown as `delivery.retrying`.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import and_, case, func, select

from nanotasks.central.base import table_of
from nanotasks.central.changes import StateChange
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.hosts import Instance
from nanotasks.central.meta import AuditEntry
from nanotasks.central.series import TaskAttempt, TaskRun, TaskSeries
from nanotasks.watch.kinds import BY_NAME
from nanotasks.watch.sources import AnyRow, Columns, Source

_event_, _route, _drop = table_of(InboundEvent).c, table_of(InboundRoute).c, table_of(Drop).c
_delivery, _attempt = table_of(Delivery).c, table_of(DeliveryAttempt).c
_instance, _change, _audit = table_of(Instance).c, table_of(StateChange).c, table_of(AuditEntry).c
_series, _run, _try = table_of(TaskSeries).c, table_of(TaskRun).c, table_of(TaskAttempt).c

_MESSAGE = (
    _event_.id,
    _event_.platform_message_id.label("message"),
    _event_.channel_type,
    _event_.platform_id,
)
_DROPS = select(
    _event_.id,
    _event_.platform_message_id.label("message"),
    _drop.channel_type,
    _drop.platform_id,
    _drop.agent_group_id.label("group"),
    _drop.reason,
).select_from(table_of(Drop).outerjoin(table_of(InboundEvent), _event_.id == _drop.event_id))
_OF_DROP = Columns((func.coalesce(_event_.accept_order, 0), _drop.id), group=_drop.agent_group_id)
_ROUTES = select(
    *_MESSAGE,
    _route.session_id.label("session"),
    _route.agent_group_id.label("group"),
    _route.inbound_id.label("inbound"),
    _route.trigger.label("wakes"),
    _route.state.label("state_"),
).select_from(table_of(InboundRoute).join(table_of(InboundEvent), _event_.id == _route.event_id))
_INSTANCES = select(
    _instance.id.label("instance"),
    _instance.session_id.label("session"),
    _instance.agent_group_id.label("group"),
    _instance.host_id.label("host"),
    _instance.runtime,
    _instance.epoch,
    _instance.end_reason.label("reason"),
    _instance.exit_code,
)
_DELIVERY_IDS = (
    _delivery.id.label("delivery"),
    _delivery.session_id.label("session"),
    _delivery.agent_group_id.label("group"),
    _delivery.message_out_id.label("message_out"),
    _delivery.in_reply_to,
)
_DELIVERIES = select(
    *_DELIVERY_IDS,
    _delivery.channel_type,
    _delivery.platform_id,
    _delivery.kind,
    _delivery.attempts,
    _delivery.error_class,
    _delivery.platform_message_id,
    _delivery.state.label("state_"),
)
_ATTEMPTS = select(
    *_DELIVERY_IDS,
    _attempt.number.label("attempt"),
    _attempt.worker,
    _attempt.task_id.label("task"),
    _attempt.error_class,
    _attempt.outcome.label("outcome_"),
    case(
        (
            and_(_attempt.number == _delivery.attempts, _delivery.state.in_(("retrying", "parked"))),
            _delivery.next_attempt_at,
        )
    ).label("next_attempt_at"),
    _delivery.attempts.label("made_"),
    _delivery.state.label("state_"),
).select_from(table_of(DeliveryAttempt).join(table_of(Delivery), _delivery.id == _attempt.delivery_id))
_RUN_IDS = (
    _run.id.label("run"),
    _run.series_id.label("series"),
    _run.session_id.label("session"),
    _series.agent_group_id.label("group"),
    _run.scheduled_for.label("scheduled_for_at"),
)
_OF_SERIES = _series.id == _run.series_id
_RUNS = select(
    *_RUN_IDS, _run.inbound_id.label("inbound"), _run.outcome, _run.error_class, _run.state.label("state_")
).select_from(table_of(TaskRun).join(table_of(TaskSeries), _OF_SERIES))
_TRIES = select(
    *_RUN_IDS,
    _try.inbound_id.label("inbound"),
    _try.number.label("attempt"),
    _try.error_class,
    _try.outcome.label("outcome_"),
    _run.lateness_ms.label("late_ms"),
    _run.attempts.label("made_"),
    _run.state.label("state_"),
).select_from(
    table_of(TaskAttempt).join(table_of(TaskRun), _run.id == _try.run_id).join(table_of(TaskSeries), _OF_SERIES)
)


def _always(name: str) -> Callable[[AnyRow], str | None]:
    return lambda _row: name


def _after_attempt(row: AnyRow) -> str | None:
    """What a failed attempt led to; the end of the delivery has its own event."""
    if row.outcome_ == "delivered":
        return None
    if row.attempt < row.made_:
        return "delivery.retrying"
    waits = {"retrying", "parked", "held"}
    return f"delivery.{row.state_}" if row.state_ in waits else None


def _after_try(row: AnyRow) -> str | None:
    follows = row.attempt < row.made_ or row.state_ == "retrying"
    return "run.retrying" if follows and row.outcome_ == "failed" else None


def _appended(row: AnyRow) -> str:
    return "message.appended" if row.wakes else "message.context"


def _ended(row: AnyRow) -> str | None:
    return "run.ended" if row.state_ == "ended" else None


def _one_of(prefix: str, *states: str) -> Callable[[AnyRow], str | None]:
    return lambda row: f"{prefix}.{row.state_}" if row.state_ in states else None


_OF_EVENT = Columns((_event_.accept_order, _event_.id))
_OF_ROUTE = Columns((_route.id,), _route.session_id, _route.agent_group_id)
_OF_INSTANCE = Columns((_instance.id,), _instance.session_id, _instance.agent_group_id)
_OF_DELIVERY = Columns((_delivery.seq, _delivery.id), _delivery.session_id, _delivery.agent_group_id)
_OF_ATTEMPT = Columns((_attempt.id,), _delivery.session_id, _delivery.agent_group_id)
_OF_RUN = Columns((_run.scheduled_for, _run.id), _run.session_id, _series.agent_group_id)
_OF_TRY = Columns((_try.run_id, _try.number), _run.session_id, _series.agent_group_id)

# In the order in which events of one millisecond are shown, which is that of a message's way.
SOURCES = (
    Source(
        "change",
        (
            "host.up",
            "host.down",
            "group.moved",
            "lease.taken_over",
            "lease.freed",
            "message.retrying",
            "message.dead",
            "wake.failed",
        ),
        select(_change.name.label("name_"), _change.subject.label("subject_"), _change.detail.label("detail_")),
        _change.at,
        Columns((_change.id,)),
        lambda row: row.name_ if row.name_ in BY_NAME else None,
    ),
    Source(
        "audit",
        ("audit.recorded",),
        select(_audit.id.label("audit"), _audit.actor, _audit.action, _audit.target),
        _audit.at,
        Columns((_audit.id,)),
        _always("audit.recorded"),
    ),
    Source(
        "accept",
        ("message.accepted",),
        select(*_MESSAGE, _event_.thread_id),
        _event_.received_at,
        _OF_EVENT,
        _always("message.accepted"),
    ),
    Source("drop", ("message.dropped",), _DROPS, _drop.created_at, _OF_DROP, _always("message.dropped")),
    Source("route", ("message.routed",), _ROUTES, _route.created_at, _OF_ROUTE, _always("message.routed")),
    Source("append", ("message.appended", "message.context"), _ROUTES, _route.appended_at, _OF_ROUTE, _appended),
    Source("wake", ("session.woken",), _INSTANCES, _instance.started_at, _OF_INSTANCE, _always("session.woken")),
    Source("start", ("instance.started",), _INSTANCES, _instance.running_at, _OF_INSTANCE, _always("instance.started")),
    Source("claim", ("run.claimed",), _TRIES, _try.claimed_at, _OF_TRY, _always("run.claimed")),
    Source(
        "enter", ("delivery.entered",), _DELIVERIES, _delivery.created_at, _OF_DELIVERY, _always("delivery.entered")
    ),
    Source("send", ("delivery.attempted",), _ATTEMPTS, _attempt.started_at, _OF_ATTEMPT, _always("delivery.attempted")),
    Source(
        "failure",
        ("delivery.retrying", "delivery.parked", "delivery.held"),
        _ATTEMPTS,
        _attempt.finished_at,
        _OF_ATTEMPT,
        _after_attempt,
    ),
    Source(
        "delivery end",
        ("delivery.delivered", "delivery.dead"),
        _DELIVERIES,
        _delivery.finished_at,
        _OF_DELIVERY,
        _one_of("delivery", "delivered", "dead"),
    ),
    Source(
        "message end",
        ("message.answered", "message.completed", "message.dead"),
        _ROUTES,
        _route.finished_at,
        _OF_ROUTE,
        _one_of("message", "answered", "completed", "dead"),
    ),
    Source("try end", ("run.retrying",), _TRIES, _try.finished_at, _OF_TRY, _after_try),
    Source("run end", ("run.ended",), _RUNS, _run.finished_at, _OF_RUN, _ended),
    Source("end", ("instance.ended",), _INSTANCES, _instance.ended_at, _OF_INSTANCE, _always("instance.ended")),
)
