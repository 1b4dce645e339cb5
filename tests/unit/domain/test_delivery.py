"""What becomes of a failed delivery, and of the message it answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.delivery import (
    Failure,
    History,
    Patience,
    Verdict,
    channel_of,
    death_notice,
    decide_after_failure,
    lane_of,
    route_end,
    shared_end,
    shorten,
)

PATIENCE = Patience(backoff_ms=2_000, backoff_max_ms=60_000, lane_hold_ms=300_000, horizon_ms=3_600_000)
START = 1_000_000

ERRORS = st.sampled_from(["transient", "rate_limited", "permanent", "destination", "unknown_outcome"])


def decide(
    error_class: str,
    *,
    attempts: int = 1,
    after_ms: int = 0,
    retry_after_ms: int = 0,
    unknown_before: int = 0,
    uncertain: str = "idempotent",
    luck: float = 0.0,
) -> Verdict:
    return decide_after_failure(
        Failure(error_class, "why", retry_after_ms),
        History(attempts, START, unknown_before),
        START + after_ms,
        PATIENCE,
        uncertain=uncertain,
        luck=luck,
    )


@pytest.mark.parametrize(
    ("error_class", "facts", "state", "pause_ms"),
    [
        ("transient", {}, "retrying", 2_000),
        ("transient", {"attempts": 3}, "retrying", 8_000),
        # Luck takes away up to a half.
        ("transient", {"attempts": 3, "luck": 0.999}, "retrying", 8_000 - 3_996),
        # No pause is longer than the longest.
        ("transient", {"attempts": 30}, "retrying", 60_000),
        ("destination", {}, "retrying", 2_000),
        # The platform's own pause, longer or shorter than ours, but not longer than our longest.
        ("rate_limited", {"retry_after_ms": 30_000}, "retrying", 30_000),
        ("rate_limited", {"retry_after_ms": 500, "attempts": 8}, "retrying", 500),
        ("rate_limited", {}, "retrying", 2_000),
        ("rate_limited", {"retry_after_ms": 10**9}, "retrying", 60_000),
        # The last attempt that holds the lane is made when the hold ends: at 300 s, not at 290 + 60 s.
        ("transient", {"attempts": 9, "after_ms": 290_000}, "retrying", 10_000),
        # From then on it is parked, and the lane goes on.
        ("transient", {"attempts": 10, "after_ms": 300_000}, "parked", 60_000),
        ("destination", {"attempts": 10, "after_ms": 300_000}, "parked", 60_000),
        # A pause that the platform asked for may reach beyond the hold, but holds the lane no longer.
        ("rate_limited", {"after_ms": 290_000, "retry_after_ms": 30_000}, "retrying", 30_000),
        ("rate_limited", {"attempts": 10, "after_ms": 300_000, "retry_after_ms": 1_000}, "parked", 1_000),
        # The last attempt is made at the horizon.
        ("transient", {"attempts": 70, "after_ms": 3_590_000}, "parked", 10_000),
        # A channel that knows our keys takes a repetition of unknown outcome like any other failure.
        ("unknown_outcome", {}, "retrying", 2_000),
        # One that does not gets it once more.
        ("unknown_outcome", {"uncertain": "resend"}, "retrying", 2_000),
    ],
)
def test_a_failed_row_is_tried_again(error_class: str, facts: dict[str, Any], state: str, pause_ms: int) -> None:
    """Pauses grow, obey the platform, and end with the lane's hold and the horizon."""
    assert decide(error_class, **facts) == Verdict(state, START + facts.get("after_ms", 0) + pause_ms)


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (decide("permanent"), "dead"),
        (decide("transient", attempts=80, after_ms=3_600_000), "dead"),
        (decide("rate_limited", attempts=80, after_ms=3_600_001), "dead"),
        (decide("unknown_outcome", uncertain="hold"), "held"),
        (decide("unknown_outcome", uncertain="resend", attempts=2, unknown_before=1), "dead"),
        (decide("permanent", uncertain="hold"), "dead"),
    ],
)
def test_a_failed_row_ends(verdict: Verdict, state: str) -> None:
    """Its own error, the horizon, a second unknown outcome: dead; a channel that holds what is uncertain: held."""
    assert verdict == Verdict(state)


@given(
    ERRORS,
    st.integers(1, 200),
    st.integers(0, 10_000_000),
    st.integers(0, 10**9),
    st.sampled_from(["idempotent", "resend", "hold"]),
    st.floats(0, 0.999),
)
def test_no_row_is_tried_for_ever(
    error_class: str, attempts: int, after_ms: int, asked_ms: int, uncertain: str, luck: float
) -> None:
    """Whatever fails how often: it ends at the horizon (and one pause), and holds its lane no longer than it may."""
    verdict = decide(
        error_class, attempts=attempts, after_ms=after_ms, retry_after_ms=asked_ms, uncertain=uncertain, luck=luck
    )
    now = START + after_ms
    if after_ms >= PATIENCE.horizon_ms:
        assert verdict.state in {"dead", "held"}
    if verdict.next_attempt_ms is not None:
        assert now <= verdict.next_attempt_ms <= now + PATIENCE.backoff_max_ms
    # A pause that the platform asked for is obeyed, whatever it holds up.
    if verdict.state == "retrying" and error_class != "rate_limited" and not asked_ms:
        assert verdict.next_attempt_ms is not None
        assert verdict.next_attempt_ms <= START + PATIENCE.lane_hold_ms


def test_a_lane_is_a_destination_of_a_session() -> None:
    """Rows without an address share one; the channel can be read off."""
    assert lane_of("s", "file", "family") == "s|file|family"
    assert lane_of("s", None, None) == "s||"
    assert channel_of(lane_of("s", "file", "a|b")) == "file"
    assert channel_of("s||") == ""


@pytest.mark.parametrize(
    ("status", "acknowledgement", "replies", "end"),
    [
        ("pending", None, (), None),
        ("completed", "completed", ("delivered",), "answered"),
        ("completed", "completed", (), "completed"),
        # The reply is still on its way.
        ("completed", "completed", ("retrying",), None),
        ("completed", "completed", ("delivered", "parked"), None),
        ("completed", "completed", ("delivered", "dead"), "answered"),
        ("completed", "completed", ("dead",), "dead"),
        # Nobody knows whether it arrived; an operator decides.
        ("completed", "completed", ("held",), "completed"),
        # The agent gave it up, with a word of apology or without.
        ("completed", "failed", (), "dead"),
        ("completed", "failed", ("delivered",), "answered"),
        # Crashed too often.
        ("failed", None, (), "dead"),
        # An acknowledgement that was synced in an earlier round and is gone from the file by now.
        ("completed", None, (), "completed"),
    ],
)
def test_how_a_route_ends(status: str, acknowledgement: str | None, replies: tuple[str, ...], end: str | None) -> None:
    """Answered means that a reply is out."""
    assert route_end(status, acknowledgement, replies) == end


def test_a_notice_says_what_why_and_how_often() -> None:
    """The agent can tell which message was lost and what to do about it."""
    notice = death_notice("message #7 to family on file", Failure("permanent", "The chat is gone."), 1)
    assert notice == "Your message #7 to family on file was not delivered: The chat is gone. It was tried once."
    assert death_notice("message #7", Failure("permanent", "no"), 0).endswith("It was not tried.")
    uncertain = death_notice("message #7", Failure("unknown_outcome", "no answer"), 2)
    assert uncertain.endswith("It was tried 2 times. It may have arrived all the same.")


def test_an_error_text_fits_a_table() -> None:
    """One line, of bounded length."""
    assert shorten("a\n  b") == "a b"
    assert len(shorten("x" * 10_000)) == 500


@pytest.mark.parametrize(
    ("replies", "end"),
    [
        (["delivered"], "answered"),
        (["delivered", "dead"], "answered"),
        (["dead"], "completed"),
        (["pending"], None),
        # What is on its way may still arrive, or not: the message waits for it.
        (["delivered", "retrying"], None),
    ],
)
def test_a_message_that_was_answered_together_with_others_ends_with_them(replies: list[str], end: str | None) -> None:
    """Its own reply names another message of the batch."""
    assert shared_end(replies) == end
