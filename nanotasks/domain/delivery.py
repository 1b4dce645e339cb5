"""What becomes of a delivery: after a failed attempt, of the rows behind it, and of the message it answers.

    failure           what it means                      the delivery
    transient         the platform or the way is ill     tried again, with growing pauses
    rate_limited      the platform asks for a pause      tried again after it; the lane waits, since all of it is meant
    destination       the chat cannot be reached         tried again, with growing pauses
    unknown_outcome   it may have arrived                under a key the platform knows: tried again;
                                                         otherwise sent once more, or held, as the channel says
    permanent         this message will never go         dead at once

A row that is tried again holds its lane, so that order is kept, but for `lane_hold_ms` at most (a platform's own
pause excepted): then it is parked and the rows behind it go on. After `horizon_ms` it is dead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nanotasks.domain.backoff import jittered

TEXT_LIMIT = 500
_OPEN = frozenset({"pending", "sending", "retrying", "parked"})


@dataclass(frozen=True)
class Patience:
    """How long deliveries are tried, in milliseconds."""

    backoff_ms: int = 2_000
    backoff_max_ms: int = 900_000
    lane_hold_ms: int = 900_000
    horizon_ms: int = 21_600_000


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed; `retry_after_ms` is the pause the platform asked for, or 0."""

    error_class: str
    text: str
    retry_after_ms: int = 0


@dataclass(frozen=True)
class History:
    """`attempts` includes the one that failed; `unknown_before` counts earlier ones of unknown outcome.

    Both count from the first attempt, which an operator's retry makes anew.
    """

    attempts: int
    first_attempt_ms: int
    unknown_before: int = 0


@dataclass(frozen=True)
class Verdict:
    """The next state: `retrying` or `parked` with the time of the next attempt, `held`, or `dead`."""

    state: str
    next_attempt_ms: int | None = None


def decide_after_failure(
    failure: Failure, history: History, now_ms: int, patience: Patience, *, uncertain: str, luck: float
) -> Verdict:
    """What becomes of a delivery whose attempt failed.

    `uncertain` is `idempotent`, `resend` or `hold`: what its channel does about an unknown outcome. `luck` is a
    random number in [0, 1) that spreads the pauses.
    """
    if failure.error_class == "permanent":
        return Verdict("dead")
    if failure.error_class == "unknown_outcome" and uncertain != "idempotent":
        if uncertain == "hold":
            return Verdict("held")
        if history.unknown_before:
            return Verdict("dead")
    last_chance_ms = history.first_attempt_ms + patience.horizon_ms
    if now_ms >= last_chance_ms:
        return Verdict("dead")
    # A platform that says when to come again is obeyed; it knows better than our backoff.
    asked_ms = min(failure.retry_after_ms, patience.backoff_max_ms)
    pause_ms = asked_ms or jittered(history.attempts, patience.backoff_ms, patience.backoff_max_ms, luck)
    next_ms = min(now_ms + pause_ms, max(last_chance_ms, now_ms + asked_ms))
    hold_end_ms = history.first_attempt_ms + patience.lane_hold_ms
    if now_ms >= hold_end_ms:
        return Verdict("parked", next_ms)
    # The last attempt that holds the lane is made when its hold ends, not after it.
    return Verdict("retrying", next_ms if asked_ms else min(next_ms, hold_end_ms))


def lane_of(session_id: str, channel_type: str | None, platform_id: str | None) -> str:
    """The lane of a row: rows of one session to one destination, in order."""
    return f"{session_id}|{channel_type or ''}|{platform_id or ''}"


def channel_of(lane: str) -> str:
    """The channel type that a lane leads to; empty where its rows name none."""
    return lane.split("|", 2)[1]


def shorten(text: str) -> str:
    """An error text of a length that fits a table and a prompt, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_LIMIT else line[: TEXT_LIMIT - 1] + "…"


def death_notice(subject: str, failure: Failure, attempts: int) -> str:
    """What the agent is told when something of it was given up; `subject` is such as `message #7 to the chat x`."""
    tried = {0: "It was not tried.", 1: "It was tried once."}.get(attempts, f"It was tried {attempts} times.")
    doubt = " It may have arrived all the same." if failure.error_class == "unknown_outcome" else ""
    reason = failure.text.rstrip(".") or failure.error_class
    return f"Your {subject} was not delivered: {reason}. {tried}{doubt}"


def dead_reason(status: str, acknowledgement: str | None, tries: int) -> str:
    """Why a message ends without an answer."""
    if status == "failed":
        return f"the agent ended {tries} times while it worked on it" if tries else "it was given up"
    if acknowledgement == "failed":
        return "the agent could not read it"
    return "the reply was not delivered"


def shared_end(replies: Collection[str]) -> str | None:
    """How a message without a reply of its own ends where its agent replied to others of its chat together with it.

    `replies` are the states of those deliveries: while they are on their way it has not ended.
    """
    if set(replies) & _OPEN:
        return None
    return "answered" if "delivered" in replies else "completed"


def route_end(status: str, acknowledgement: str | None, replies: Collection[str]) -> str | None:
    """How the route of an inbound row ends; None while it is at work or a reply is on its way.

    `status` is the row's, `acknowledgement` the agent's, `replies` are the states of the deliveries that answer it.
    A route is `answered` when a reply was delivered; `completed` when the agent had nothing to say (or nobody
    knows whether its reply arrived); `dead` when the row failed, the agent gave it up, or its replies did.
    """
    if status == "failed":
        return "dead"
    if status != "completed" or set(replies) & _OPEN:
        return None
    if "delivered" in replies:
        return "answered"
    return "dead" if acknowledgement == "failed" or "dead" in replies else "completed"
