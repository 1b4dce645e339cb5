"""Working off one lane: claim, send, record, and the next row in the same commit.

    claim_head ──▶ carry ──▶ finish + claim of the next ──▶ carry ──▶ … ──▶ finish, nothing left

A lane run makes first attempts only. Where a row is to be tried again the run ends, and that row's own signal
continues the lane when it is due. Any number of processes may run one lane: whoever claims its head goes on, and
its last commit looks once more, after everything that the others entered.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nanotasks import faults, logs
from nanotasks.channels import registry
from nanotasks.clock import iso
from nanotasks.deliver import calls
from nanotasks.deliver.courier import AGENT, SYSTEM, Courier
from nanotasks.deliver.facts import OVERDUE_MARGIN_S, Round
from nanotasks.deliver.ledger import Claim
from nanotasks.deliver.pool import Job
from nanotasks.domain.delivery import Failure, History, Verdict, channel_of, decide_after_failure
from nanotasks.errors import DependencyDownError

_log = logs.get("deliver")

T = TypeVar("T")

# An outcome that cannot be recorded makes the send one of unknown outcome, so it is worth some patience.
_RECORD_AGAIN_S = (0.2, 1.0, 3.0)


class LaneRun:
    """One run over one lane until `until` (monotonic): from its head, or a later attempt of one delivery.

    `head` is the lane's head when it was claimed already, `later` a delivery and the number of the attempt; `made`
    tells whether that was still to be made.
    """

    def __init__(
        self,
        around: Round,
        lane: str,
        *,
        until: float,
        head: Claim | None = None,
        later: tuple[str, int] | None = None,
    ) -> None:
        self._round = around
        self._lane = lane
        self._until = until
        self._head = head
        self._later = later
        self.made = False
        self._courier = Courier(around)
        channel = registry.capabilities(channel_of(lane), around.settings)
        self._rate_per_s = rate_of(around, lane)
        self._shows_typing = channel is not None and channel.supports_typing
        self.interrupted = False

    def work(self, job: Job) -> None:
        """Send until the lane is empty, waits for a later attempt, or time is up (then `interrupted`)."""
        claim = self._head or (self._claim_later(*self._later) if self._later else self._next())
        while claim is not None:
            job.busy_until = time.monotonic() + self._round.settings.delivery_timeout_s + OVERDUE_MARGIN_S
            # A rate limit is waited for before the claim: a row that is `sending` may have left.
            fused = not self._rate_per_s and time.monotonic() < self._until
            following = self._carry(claim, go_on=fused)
            claim = following if fused else self._next()

    def _claim_later(self, delivery_id: str, number: int) -> Claim | None:
        self._wait_for_token()
        if time.monotonic() >= self._until:
            self.interrupted = True
            return None
        claim = self._round.ledger.claim_attempt(delivery_id, number)
        self.made = claim is not None
        return claim

    def _next(self) -> Claim | None:
        ledger = self._round.ledger
        if self._rate_per_s and not ledger.has_head(self._lane):
            return None
        self._wait_for_token()
        if time.monotonic() >= self._until:
            self.interrupted = True
            return None
        return ledger.claim_head(self._lane)

    def _wait_for_token(self) -> None:
        bucket = f"send:{channel_of(self._lane)}"
        while self._rate_per_s and (pause := self._round.signals.wait_for_token(bucket, self._rate_per_s)) > 0:
            if time.monotonic() + pause >= self._until:
                self._until = 0.0
                return
            time.sleep(pause)

    def _carry(self, claim: Claim, *, go_on: bool) -> Claim | None:
        faults.point("deliver.after_claim")
        try:
            platform_message_id = self._courier.carry(claim)
        except Exception as error:
            return self._record_failure(claim, calls.failure_of(error), go_on)
        faults.point("deliver.after_send")
        ledger = self._round.ledger
        following = _persistently(lambda: ledger.finish_delivered(claim, platform_message_id, go_on=go_on))
        faults.point("deliver.after_finish")
        _log.info("delivered", **_ids(claim), platform_message=platform_message_id)
        if self._shows_typing and claim.kind != SYSTEM:
            self._round.signals.poke(f"typing:{self._round.session.host_id}", {"delivered": claim.session_id})
        return following

    def _record_failure(self, claim: Claim, failure: Failure, go_on: bool) -> Claim | None:
        ledger = self._round.ledger
        verdict, following = _persistently(
            lambda: ledger.finish_failed(claim, failure, lambda past: decide(self._round, claim, failure, past), go_on)
        )
        _log.warning(
            "delivery_failed",
            **_ids(claim),
            error_class=failure.error_class,
            error=failure.text,
            state=verdict.state,
            next_attempt_at=verdict.next_attempt_ms and iso(verdict.next_attempt_ms),
        )
        if claim.attempt == 1 and verdict.state == "retrying":
            # It is not due yet: its task puts the delivery on a line of its own in Flower, with the reason.
            self._round.signals.ring("attempt", claim.id, self._round.session.host_id, 2)
        return following


def _ids(claim: Claim) -> dict[str, Any]:
    """What leads from a line of the log to the row, to the message that was answered, and to the agent's log."""
    return {
        "delivery": claim.id,
        "session": claim.session_id,
        "message_out": claim.message_out_id,
        "in_reply_to": claim.in_reply_to,
        "attempt": claim.attempt,
    }


def rate_of(around: Round, lane: str) -> float:
    """How many messages per second the channel of a lane takes; 0 for any number."""
    channel = registry.capabilities(channel_of(lane), around.settings)
    return channel.rate_limit_per_s if channel else 0.0


def decide(around: Round, claim: Claim, failure: Failure, past: History) -> Verdict:
    """What becomes of a failed row, by its channel and this installation's patience."""
    return decide_after_failure(
        failure,
        past,
        around.now_ms(),
        around.patience,
        uncertain=_uncertain(around, claim),
        luck=random.random(),
    )


def _uncertain(around: Round, claim: Claim) -> str:
    if claim.kind == SYSTEM or claim.channel_type == AGENT:
        return "idempotent"
    channel = registry.capabilities(claim.channel_type or "", around.settings)
    if channel is None:
        return "resend"
    return "idempotent" if channel.idempotent else channel.uncertain


def _persistently(record: Callable[[], T]) -> T:
    for pause_s in _RECORD_AGAIN_S:
        try:
            return record()
        except DependencyDownError as error:
            _log.warning("outcome_not_recorded_yet", error=str(error))
            time.sleep(pause_s)
    return record()
