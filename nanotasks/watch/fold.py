"""Counting spans of time and ends, once for every reader, from the rows that tell them.

    rows with their times ──(mark, now − LAG]──▶ counted by bucket ──▶ added to `durations` and `counters`, mark moved

Readers see only what was added, so these figures never go back, whatever becomes of the rows later: a message that is
asked again, a delivery that an operator retries, rows that are deleted one day. A mark is moved by compare-and-set in
the commit that adds, so any number of processes may fold and every row counts once. LAG leaves transactions the time
to commit, and hosts the difference of their clocks; a row that appears later than that, behind the mark, is not
counted. Where nobody folds for a while the next fold makes up for it. Each query is a range of an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import aliased

from nanotasks.central import Database, figures
from nanotasks.central.base import table_of
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.engine import insert_for, insert_missing
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.figures import ATTEMPTS, DROPS, MESSAGES, RUNS, DurationBucket, Fold
from nanotasks.central.hosts import Instance
from nanotasks.central.series import TaskRun
from nanotasks.domain.vocabulary import RUN_OUTCOMES

LAG_MS = 10_000
# Upper bounds of the buckets in milliseconds; the last takes everything, in effect.
BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000)
UNBOUNDED_MS = 2**62

_FOLD = "rows"
_AFTER: BindParameter[int] = bindparam("after")
_UNTIL: BindParameter[int] = bindparam("until")


def fold(db: Database, *, lag_ms: int = LAG_MS) -> bool:
    """Count what was not counted; False when there is nothing new, or somebody else counted it meanwhile."""
    with db.read_core() as connection:
        until = db.now_ms(connection) - lag_ms
        mark = connection.execute(select(Fold.mark_ms).where(Fold.name == _FOLD)).scalar()
        if until <= (mark or 0):
            return False
        span = {"after": mark or 0, "until": until}
        durations = [(name, connection.execute(query, span).all()) for name, query in _DURATIONS.items()]
        ends = [(name, connection.execute(query, span).all()) for name, query in _ENDS]
    with db.write_core() as connection:
        if mark is None:
            connection.execute(insert_missing(connection, Fold), {"name": _FOLD, "mark_ms": 0})
        moved = update(Fold).where(Fold.name == _FOLD, Fold.mark_ms == (mark or 0)).values(mark_ms=until)
        if connection.execute(moved).rowcount != 1:
            return False
        for name, rows in durations:
            _add_durations(connection, name, rows)
        for name, counts in ends:
            figures.add(connection, name, dict(counts))
    return True


def _add_durations(connection: Connection, name: str, rows: Sequence[Any]) -> None:
    insertion = insert_for(connection, DurationBucket)
    adding = insertion.on_conflict_do_update(
        index_elements=["name", "bound_ms"],
        set_={
            "count": DurationBucket.count + insertion.excluded.count,
            "sum_ms": DurationBucket.sum_ms + insertion.excluded.sum_ms,
        },
    )
    for bound_ms, count, sum_ms in sorted(rows):
        connection.execute(adding, {"name": name, "bound_ms": bound_ms, "count": count, "sum_ms": int(sum_ms)})


def _within(at: Any) -> ColumnElement[bool]:
    return and_(at > _AFTER, at <= _UNTIL)


def _spans(begin: Any, end: Any) -> Select[Any]:
    """How many spans per bucket; clocks of two hosts may make one negative, which counts as none at all."""
    length = case((end > begin, end - begin), else_=0)
    bucket = case(*((length <= bound, literal(bound)) for bound in BOUNDS_MS), else_=literal(UNBOUNDED_MS))
    return select(bucket.label("bucket"), func.count(), func.sum(length)).group_by(bucket)


_routes, _events = table_of(InboundRoute).c, table_of(InboundEvent).c
_deliveries, _attempts = table_of(Delivery).c, table_of(DeliveryAttempt).c
_instances, _drops = table_of(Instance).c, table_of(Drop).c
_runs = table_of(TaskRun).c
_earlier = aliased(Delivery, name="earlier")

_DURATIONS: dict[str, Select[Any]] = {
    # From the gateway's hands into the session's file.
    "accept": _spans(_events.received_at, _routes.appended_at)
    .select_from(table_of(InboundRoute).join(table_of(InboundEvent), _events.id == _routes.event_id))
    .where(_within(_routes.appended_at)),
    # From the record of a start until the runtime had started it.
    "wake": _spans(_instances.started_at, _instances.running_at).where(_within(_instances.running_at)),
    # From the session's file to the first thing that was said about it; a container's start is in it.
    "turn": _spans(_routes.appended_at, _deliveries.created_at)
    .select_from(
        table_of(Delivery).join(
            table_of(InboundRoute),
            and_(_routes.session_id == _deliveries.session_id, _routes.inbound_id == _deliveries.in_reply_to),
        )
    )
    .where(
        _within(_deliveries.created_at),
        _routes.appended_at.is_not(None),
        ~exists().where(
            _earlier.session_id == _deliveries.session_id,
            _earlier.in_reply_to == _deliveries.in_reply_to,
            _earlier.seq < _deliveries.seq,
        ),
    ),
    # From the ledger to the platform's answer, all attempts and pauses in between.
    "deliver": _spans(_deliveries.created_at, _attempts.finished_at)
    .select_from(table_of(DeliveryAttempt).join(table_of(Delivery), _deliveries.id == _attempts.delivery_id))
    .where(_within(_attempts.finished_at), _attempts.outcome == "delivered"),
}

_ENDS: tuple[tuple[str, Select[Any]], ...] = (
    (
        ATTEMPTS,
        select(_attempts.outcome, func.count())
        .where(_within(_attempts.finished_at), _attempts.outcome.is_not(None))
        .group_by(_attempts.outcome),
    ),
    (DROPS, select(_drops.reason, func.count()).where(_within(_drops.created_at)).group_by(_drops.reason)),
    (
        MESSAGES,
        select(_routes.state, func.count())
        .where(_within(_routes.finished_at), _routes.state.in_(("completed", "answered", "dead")))
        .group_by(_routes.state),
    ),
    (
        MESSAGES,
        select(_routes.state, func.count())
        .where(_within(_routes.appended_at), _routes.state == "context")
        .group_by(_routes.state),
    ),
    (
        RUNS,
        select(_runs.outcome, func.count())
        .where(_runs.outcome.in_(RUN_OUTCOMES), _within(_runs.finished_at))
        .group_by(_runs.outcome),
    ),
)
DURATIONS = tuple(_DURATIONS)
