"""The verbs on the delivery ledger: claim, finish, recover. Each is one conditional statement that may lose.

A claim moves a row to `sending` and writes its attempt in one transaction, before the send. A finish holds only
while the row is still that claim's (state, number of attempts, owner); it may claim the lane's next row in the same
transaction, so that a lane costs one commit a row. A row that is `sending` carries in `next_attempt_at` the time
from which its send counts as overdue; so one index finds all that is due.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    Connection,
    Row,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from nanotasks import logs
from nanotasks.central import figures
from nanotasks.central.base import in_states, table_of
from nanotasks.central.deliveries import OPEN_STATES, Delivery, DeliveryAttempt
from nanotasks.central.engine import Database
from nanotasks.clock import now_ms
from nanotasks.deliver.host_messages import PREFIX
from nanotasks.domain.delivery import Failure, History, Verdict, shorten
from nanotasks.owners import Owner, is_dead

_log = logs.get("deliver")

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

deliveries = table_of(Delivery)
attempts = table_of(DeliveryAttempt)
_row = deliveries.c
_other = deliveries.alias("other")
_head = deliveries.alias("head")


@dataclass(frozen=True)
class Claim:
    """A delivery that this process is sending, with all that its send needs; `attempt` counts from 1."""

    id: str
    session_id: str
    agent_group_id: str
    message_out_id: str
    seq: int
    lane: str
    kind: str
    channel_type: str | None
    platform_id: str | None
    thread_id: str | None
    in_reply_to: str | None
    content: str
    attempt: int
    first_attempt_ms: int


_RETURNED = (
    _row.id,
    _row.session_id,
    _row.agent_group_id,
    _row.message_out_id,
    _row.seq,
    _row.lane,
    _row.kind,
    _row.channel_type,
    _row.platform_id,
    _row.thread_id,
    _row.in_reply_to,
    _row.content,
    _row.attempts,
    _row.first_attempt_at,
)


def _lane_is_sending(lane: Any) -> Any:
    return exists().where(_other.c.lane == lane, in_states("other", "sending"))


def _claiming(where: Any) -> Update:
    return (
        update(deliveries)
        .where(where)
        .values(
            state="sending",
            attempts=_row.attempts + 1,
            send_started_at=bindparam("now"),
            first_attempt_at=func.coalesce(_row.first_attempt_at, bindparam("now")),
            next_attempt_at=bindparam("overdue_at"),
            sending_owner=bindparam("owner"),
            signalled_at=None,
        )
        .returning(*_RETURNED)
    )


def _place(table: Any) -> tuple[Any, ...]:
    """The order of a lane. A message of the host has the seq of the row that it stands behind, whatever its clock."""
    is_from_host = case((table.c.message_out_id.startswith(PREFIX), 1), else_=0)
    return table.c.seq, is_from_host, table.c.id


# The first row of a lane that is due; nothing while a row is being sent, or while an earlier one is to be retried.
_HEAD = (
    select(_head.c.id)
    .where(
        _head.c.lane == bindparam("lane_name"),
        in_states("head", *OPEN_STATES),
        in_states("head", "pending"),
        _head.c.next_attempt_at <= bindparam("now"),
        ~_lane_is_sending(bindparam("lane_name")),
        ~exists().where(
            _other.c.lane == bindparam("lane_name"),
            tuple_(*_place(_other)) < tuple_(*_place(_head)),
            in_states("other", *OPEN_STATES),
            in_states("other", "retrying"),
        ),
    )
    .order_by(*_place(_head))
    .limit(1)
)
_CLAIM_HEAD = _claiming(and_(_row.id == _HEAD.scalar_subquery(), _row.state == "pending"))

_IS_BEHIND = exists().where(
    _other.c.lane == _row.lane,
    tuple_(*_place(_other)) < tuple_(*_place(deliveries)),
    in_states("other", *OPEN_STATES),
    in_states("other", "retrying"),
)

# One particular row, if its next attempt has this number and is due.
_CLAIM_ATTEMPT = _claiming(
    and_(
        _row.id == bindparam("of_delivery"),
        _row.state.in_(("retrying", "parked")),
        _row.attempts == bindparam("attempts_before"),
        _row.next_attempt_at <= bindparam("now"),
        ~_lane_is_sending(_row.lane),
        # Several rows of a lane are to be tried again only by an operator's hand: then they go in their order too.
        or_(_row.state == "parked", ~_IS_BEHIND),
    )
)

_NEXT_RETRY = (
    select(_row.id, _row.attempts)
    .where(
        _row.lane == bindparam("lane_name"),
        in_states("deliveries", *OPEN_STATES),
        in_states("deliveries", "retrying"),
        _row.next_attempt_at <= bindparam("now"),
    )
    .order_by(*_place(deliveries))
    .limit(1)
)

_FINISH = (
    update(deliveries)
    .where(
        _row.id == bindparam("of_delivery"),
        _row.state == "sending",
        _row.attempts == bindparam("number_made"),
        _row.sending_owner == bindparam("owner"),
    )
    .values(
        state=bindparam("next_state"),
        next_attempt_at=bindparam("next_at"),
        error_class=bindparam("failed_class"),
        error_text=bindparam("failed_text"),
        platform_message_id=bindparam("platform_name"),
        finished_at=bindparam("ended_at"),
        sending_owner=None,
    )
)

_FINISH_ATTEMPT = (
    update(attempts)
    .where(attempts.c.delivery_id == bindparam("of_delivery"), attempts.c.number == bindparam("number_made"))
    .values(
        finished_at=bindparam("now"),
        outcome=bindparam("made_outcome"),
        error_class=bindparam("failed_class"),
        error_text=bindparam("failed_text"),
    )
)

_INSERT_ATTEMPT = insert(attempts)
_SENDING = select(*_RETURNED, _row.sending_owner, _row.next_attempt_at).where(
    in_states("deliveries", "sending"), _row.session_id == bindparam("of_session")
)


class Ledger:
    """The ledger as one process writes it.

    `overdue_ms` is the age at which a send counts as lost although its process lives; `task_id` names the Celery
    task in the attempts.
    """

    def __init__(self, db: Database, owner: Owner, *, overdue_ms: int, task_id: str | None = None) -> None:
        self.db = db
        self._owner = owner
        self._owner_text = str(owner)
        self._overdue_ms = overdue_ms
        self._task_id = task_id

    def has_head(self, lane: str) -> bool:
        """Whether `claim_head` would find something now."""
        with self.db.read() as session:
            return session.execute(_HEAD, {"lane_name": lane, "now": now_ms()}).first() is not None

    def next_retry(self, lane: str) -> tuple[str, int] | None:
        """The first row of a lane that is to be tried again now, and the attempts it had."""
        with self.db.read_core() as connection:
            found = connection.execute(_NEXT_RETRY, {"lane_name": lane, "now": now_ms()}).first()
        return None if found is None else (found.id, found.attempts)

    def claim_head(self, lane: str) -> Claim | None:
        """The lane's next first attempt, or None when there is none to make now."""
        with self.db.write_core() as connection:
            return self.claim_within(connection, lane)

    def claim_within(self, connection: Connection, lane: str) -> Claim | None:
        """`claim_head` in a transaction of the caller's."""
        return self._claim(connection, _CLAIM_HEAD, {"lane_name": lane})

    def claim_attempt(self, delivery_id: str, number: int) -> Claim | None:
        """Attempt `number` (from 2) of one delivery, or None when it is not due or was made by somebody else."""
        with self.db.write_core() as connection:
            return self._claim(connection, _CLAIM_ATTEMPT, {"of_delivery": delivery_id, "attempts_before": number - 1})

    def finish_delivered(self, claim: Claim, platform_message_id: str | None, *, go_on: bool) -> Claim | None:
        """Record a success; with `go_on` claim the lane's next row as well, and return it."""
        with self.db.write_core() as connection:
            self._finish(connection, claim, Verdict("delivered"), None, platform_message_id)
            return self.claim_within(connection, claim.lane) if go_on else None

    def finish_failed(
        self, claim: Claim, failure: Failure, decide: Callable[[History], Verdict], go_on: bool
    ) -> tuple[Verdict, Claim | None]:
        """Record a failure and what `decide` makes of it; with `go_on` claim the next row, if the lane goes on."""
        with self.db.write_core() as connection:
            verdict = decide(self._history(connection, claim))
            self._finish(connection, claim, verdict, failure, None)
            following = None
            if go_on and verdict.state != "retrying":
                following = self.claim_within(connection, claim.lane)
            return verdict, following

    def recover(
        self, session_id: str, decide: Callable[[Claim, Failure, History], Verdict]
    ) -> list[tuple[Claim, Verdict]]:
        """Close the attempts of a session that nobody will finish, as of unknown outcome, and decide on each.

        Nobody will finish an attempt whose process is dead, or which is overdue.
        """
        with self.db.read() as session:
            candidates = session.execute(_SENDING, {"of_session": session_id}).all()
        lost = [row for row in candidates if self._is_lost(row)]
        if not lost:
            return []
        recovered = []
        with self.db.write_core() as connection:
            for row in lost:
                claim = _claim_of(row)
                failure = Failure("unknown_outcome", "the process that sent it ended before it had an answer")
                verdict = decide(claim, failure, self._history(connection, claim))
                if self._finish(connection, claim, verdict, failure, None, owner=row.sending_owner):
                    recovered.append((claim, verdict))
        return recovered

    def _is_lost(self, row: AnyRow) -> bool:
        owner = Owner.parse(row.sending_owner or "")
        overdue = row.next_attempt_at is None or row.next_attempt_at <= now_ms()
        return overdue or owner is None or is_dead(owner, self._owner.host)

    def _claim(self, connection: Connection, statement: Update, parameters: dict[str, Any]) -> Claim | None:
        now = now_ms()
        parameters |= {"now": now, "overdue_at": now + self._overdue_ms, "owner": self._owner_text}
        try:
            with self._nested(connection):
                row = connection.execute(statement, parameters).one_or_none()
        except IntegrityError:
            return None  # another row of the lane is being sent since this transaction began
        if row is None:
            return None
        claim = _claim_of(row)
        connection.execute(
            _INSERT_ATTEMPT,
            {
                "delivery_id": claim.id,
                "number": claim.attempt,
                "started_at": now,
                "worker": self._owner_text,
                "task_id": self._task_id,
            },
        )
        return claim

    def _nested(self, connection: Connection) -> AbstractContextManager[Any]:
        # A refused claim must not take the outcome in the same transaction along. On SQLite none is refused:
        # writers run one after the other, and each sees what the one before it did.
        return connection.begin_nested() if self.db.dialect == "postgresql" else nullcontext()

    def _history(self, connection: Connection, claim: Claim) -> History:
        made = connection.execute(
            select(attempts.c.number, attempts.c.outcome).where(
                attempts.c.delivery_id == claim.id, attempts.c.started_at >= claim.first_attempt_ms
            )
        ).all()
        unknown = sum(outcome == "unknown_outcome" for number, outcome in made if number < claim.attempt)
        return History(max(1, len(made)), claim.first_attempt_ms, unknown)

    def _finish(
        self,
        connection: Connection,
        claim: Claim,
        verdict: Verdict,
        failure: Failure | None,
        platform_message_id: str | None,
        *,
        owner: str | None = None,
    ) -> bool:
        now = now_ms()
        parameters = {
            "of_delivery": claim.id,
            "number_made": claim.attempt,
            "owner": owner or self._owner_text,
            "next_state": verdict.state,
            "next_at": verdict.next_attempt_ms,
            "failed_class": failure.error_class if failure else None,
            "failed_text": shorten(failure.text) if failure else None,
            "platform_name": platform_message_id,
            "ended_at": now if verdict.state in {"delivered", "dead"} else None,
            "now": now,
            "made_outcome": failure.error_class if failure else "delivered",
        }
        if connection.execute(_FINISH, parameters).rowcount != 1:
            figures.noted(self.db, figures.STALE_WRITES, "delivery")
            _log.warning("delivery_finish_lost", delivery=claim.id, attempt=claim.attempt, outcome=verdict.state)
            return False
        connection.execute(_FINISH_ATTEMPT, parameters)
        return True


def _claim_of(row: AnyRow) -> Claim:
    return Claim(
        id=row.id,
        session_id=row.session_id,
        agent_group_id=row.agent_group_id,
        message_out_id=row.message_out_id,
        seq=row.seq,
        lane=row.lane,
        kind=row.kind,
        channel_type=row.channel_type,
        platform_id=row.platform_id,
        thread_id=row.thread_id,
        in_reply_to=row.in_reply_to,
        content=row.content,
        attempt=row.attempts,
        first_attempt_ms=row.first_attempt_at,
    )
