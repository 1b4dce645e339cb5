"""Delivery: what agents wrote reaches its destinations, in order, once.

The states of a delivery are drawn in `central/deliveries.py`; this page is about the order of records. One round
over one session (`deliver_session`, rung by the watcher at each commit in outbound.db, and by the sweeps):

    recover    attempts that nobody will finish are closed as of unknown outcome, and decided on
    enter      outbound.db ─▶ ledger rows (pending), and how far it was read; where       1 central commit a batch
               all goes to one lane, its head is claimed along with it
    send       lane by lane:  sending + attempt ─▶ the channel ─▶ outcome + the next      1 central commit a row
               row's sending + attempt ─▶ …
    settle     `delivered`, notices, completed rows in inbound.db ─▶ outbox cleared ─▶    1 commit in each
               projected_at, ends of routes, due time
    look again rows that came meanwhile begin the round anew

Anybody may die between any two of these steps, or be stopped and go on late. What happens then:

- after a commit in outbound.db, before `enter`: the rows are behind the mark. The sweep over running agents, or
  the last drain of a stopped one, enters them.
- after `enter`, before a claim: `pending` and due; the sweep signals the session.
- after the claim, before or during the send, or after it and before the outcome: the row is `sending` and its
  process is dead. Nobody can say whether the message left. The next round on this host sees the dead owner; one
  on another host, or one whose owner lives but hangs, waits until the send is overdue. The attempt is closed as
  `unknown_outcome`: on a channel that knows our keys it is simply sent again; on another it is sent once more, or
  held, as the channel says, and the attempts tell the tale (promise I2).
- after the outcome, before `settle`: ended rows without `projected_at` are due work for the sweep.
- within `settle`: every step is repeated without effect (rows by id, `projected_at` last).
- a sender that wakes up after its row was recovered: its finish matches neither attempt nor owner, changes
  nothing, and it stops.

A lane's order holds because only its head may be claimed: not while a row of it is `sending` (a unique index), and
not over a row that is to be tried again. First attempts of a session are made by one round at a time (`turn`), so that
a long backlog takes one child of a worker and no more; its lanes are shared with later attempts by these claims.

Later attempts are made by `attempt`, one signal each, so that Flower shows a delivery and its retries on one line.

A task does not wait long for a slow channel: after `delivery_wait_s` it goes on waiting only if it gets one of the
places for that (half of a worker's children), else its lanes go on in this process without it, and the session is
rung when the last of them has ended. A process that ends calls `pool.finish_background` first; if it is killed, see
above.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from sqlalchemy import select

from nanotasks import faults, logs, signals
from nanotasks.central.deliveries import Delivery
from nanotasks.central.engine import Database
from nanotasks.clock import now_ms
from nanotasks.deliver.entry import Entry
from nanotasks.deliver.facts import Round, Signal, Signals, begin_round
from nanotasks.deliver.lanes import LaneRun, decide, rate_of
from nanotasks.deliver.ledger import AnyRow, Claim
from nanotasks.deliver.places import place_to_wait
from nanotasks.deliver.pool import Job, process_pool
from nanotasks.deliver.settle import settle
from nanotasks.deliver.turn import Turn
from nanotasks.domain.delivery import Failure, History, Verdict
from nanotasks.settings import Settings

_log = logs.get("deliver")

# How long one round may claim new rows; what is left then is signalled anew, and other sessions have their turn.
ROUND_S = 2.0

# What a sender may take beyond its deadline before a waiting task leaves it alone.
GRACE_S = 5.0


@dataclass
class Drained:
    """What one round did. `signals` are to be rung; `unreadable` says why outbound.db could not be read.

    With `in_background` some sends go on; the session is rung when the last of them has ended.
    """

    entered: int = 0
    signals: list[Signal] = field(default_factory=list)
    unreadable: str | None = None
    in_background: bool = False


@dataclass(frozen=True)
class Attempted:
    """What became of one later attempt. `made` is False when it was not due any more; `state` is the delivery's.

    `sending` means that the send goes on in the background. `next_attempt_ms` is set while more attempts follow.
    """

    delivery_id: str
    number: int
    made: bool
    state: str
    next_attempt_ms: int | None = None
    error_class: str | None = None
    error_text: str | None = None
    signals: tuple[Signal, ...] = ()


def deliver_session(
    db: Database, settings: Settings, session_id: str, *, bells: Signals = signals, task_id: str | None = None
) -> Drained:
    """Deliver what a session's agent wrote, as far as that is possible now. Does nothing on another host.

    Raises `SessionFileError` when inbound.db cannot be used and `DependencyDownError` when the central database
    cannot; nothing is lost by either.
    """
    around = begin_round(db, settings, session_id, signals=bells, task_id=task_id)
    if around is None:
        return Drained()
    turn = Turn(around.session.folder)
    if not turn.take():
        return Drained()
    wanted = False
    try:
        drained = _round(around)
    finally:
        wanted = turn.give_back()
    if wanted:
        drained.signals.append(_look_again(around))
    drained.signals = list(dict.fromkeys(drained.signals))
    return drained


def _round(around: Round) -> Drained:
    until = time.monotonic() + ROUND_S
    drained = Drained(signals=_recover(around) if around.session.is_sending else [])
    entry = Entry(around)
    lanes = set(around.session.waiting_lanes)
    more = True
    while more and not drained.in_background:
        entered = entry.enter_new(functools.partial(_may_claim, around, frozenset(lanes)))
        drained.entered += entered.count
        drained.unreadable = entry.unreadable
        sends = Sends(around, until)
        sends.start(lanes | entered.lanes, head=entered.head)
        lanes = set()
        drained.in_background = not sends.wait()
        settled = settle(around, entry)
        drained.signals += settled.signals
        more = settled.more
        if sends.interrupted or (more and time.monotonic() >= until):
            drained.signals.append(_look_again(around))
            break
    return drained


def attempt(
    db: Database,
    settings: Settings,
    delivery_id: str,
    number: int,
    *,
    bells: Signals = signals,
    task_id: str | None = None,
) -> Attempted:
    """Make attempt `number` (from 2) of one delivery, if it is due, and go on with its lane.

    Raises as `deliver_session` does.
    """
    before = _delivery(db, delivery_id)
    around = before and begin_round(db, settings, before.session_id, signals=bells, task_id=task_id)
    if not before or not around:
        return Attempted(delivery_id, number, made=False, state=before.state if before else "gone")
    sends = Sends(around, time.monotonic() + ROUND_S)
    sends.start([before.lane], later=(delivery_id, number))
    in_background = not sends.wait()
    settled = settle(around, Entry(around))
    if sends.interrupted or settled.more:
        settled.signals.append(_look_again(around))
    row = _delivery(db, delivery_id) or before
    behind = None if row.state in {"sending", "retrying"} else around.ledger.next_retry(before.lane)
    if behind is not None:
        settled.signals.append(("attempt", behind[0], around.session.host_id, behind[1] + 1))
    return Attempted(
        delivery_id,
        number,
        made=sends.made or in_background,
        state=row.state,
        next_attempt_ms=row.next_attempt_at if row.state in {"retrying", "parked"} else None,
        error_class=row.error_class,
        error_text=row.error_text,
        signals=tuple(dict.fromkeys(settled.signals)),
    )


class Sends:
    """The lanes of one round, at work in this process's pool."""

    def __init__(self, around: Round, until: float) -> None:
        self._round = around
        self._until = until
        self._runs: list[LaneRun] = []
        self._jobs: list[Job] = []
        self._lock = threading.Lock()
        self._left = 0

    @property
    def interrupted(self) -> bool:
        """Whether a lane stopped because its time was up."""
        return any(run.interrupted for run in self._runs)

    @property
    def made(self) -> bool:
        """Whether the later attempt was still to be made."""
        return any(run.made for run in self._runs)

    def start(self, lanes: Iterable[str], *, head: Claim | None = None, later: tuple[str, int] | None = None) -> None:
        """Start on the lanes; on one only with its claimed head or a later attempt of one of its deliveries."""
        pool = process_pool(self._round.settings.adapter_calls_max)
        self._runs = [LaneRun(self._round, lane, until=self._until, head=head, later=later) for lane in lanes]
        self._jobs = [pool.submit(run.work) for run in self._runs]

    def wait(self) -> bool:
        """Wait for the lanes as long as that is allowed; False when some go on in the background."""
        pending = [job.done for job in self._jobs]
        settings = self._round.settings
        unfinished = wait(pending, settings.delivery_wait_s).not_done
        if unfinished:
            with place_to_wait(settings) as granted:
                if granted:
                    last = self._until + settings.delivery_timeout_s + GRACE_S
                    unfinished = wait(pending, max(0.0, last - time.monotonic())).not_done
        if unfinished:
            self._left = len(unfinished)
            for future in unfinished:
                future.add_done_callback(self._ended_in_background)
            return False
        for future in pending:
            future.result()
        return True

    def _ended_in_background(self, done: Future[None]) -> None:
        if done.exception() is not None:
            _log.error("lane_failed", session=self._round.session.id, error=repr(done.exception()))
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._round.signals.ring(*_look_again(self._round))


def _may_claim(around: Round, waiting: frozenset[str], fresh: frozenset[str]) -> bool:
    """Whether a claim made now is sent now: one lane, a free thread, and no rate limit to wait for."""
    lanes = waiting | fresh
    pool = process_pool(around.settings.adapter_calls_max)
    return len(lanes) == 1 and pool.has_room() and not any(rate_of(around, lane) for lane in lanes)


def _recover(around: Round) -> list[Signal]:
    def after_crash(claim: Claim, failure: Failure, past: History) -> Verdict:
        verdict = decide(around, claim, failure, past)
        # A worker's death says nothing about the channel, so the first repetition need not wait.
        at_once = verdict.state == "retrying" and past.attempts == 1
        return Verdict("retrying", now_ms()) if at_once else verdict

    found: list[Signal] = []
    for claim, verdict in around.ledger.recover(around.session.id, after_crash):
        _log.warning(
            "send_lost", delivery=claim.id, session=claim.session_id, attempt=claim.attempt, state=verdict.state
        )
        if verdict.state == "retrying" and claim.attempt == 1:
            found.append(("attempt", claim.id, around.session.host_id, 2))
    faults.point("deliver.after_recover")
    return found


def _look_again(around: Round) -> Signal:
    return ("deliver", around.session.id, around.session.host_id)


def _delivery(db: Database, delivery_id: str) -> AnyRow | None:
    with db.read() as session:
        return session.execute(
            select(
                Delivery.session_id,
                Delivery.lane,
                Delivery.state,
                Delivery.next_attempt_at,
                Delivery.error_class,
                Delivery.error_text,
            ).where(Delivery.id == delivery_id)
        ).one_or_none()
