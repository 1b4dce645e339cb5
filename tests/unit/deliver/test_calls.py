"""Calling senders of either kind, and reading their failures."""

from __future__ import annotations

import asyncio
import threading

import pytest

from nanotasks.channels.contract import (
    Address,
    DestinationError,
    OutboundMessage,
    PermanentError,
    RateLimitedError,
    Sent,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.deliver import calls
from nanotasks.domain.delivery import Failure
from nanotasks.errors import NotFoundError

MESSAGE = OutboundMessage("dlv-1", 1, Address("scripted", "family"), {"text": "hello"})


def test_a_coroutine_is_awaited_in_one_loop() -> None:
    """A sender may keep its connections from one call to the next."""
    loops = set()

    class Sender:
        async def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
            loops.add(asyncio.get_running_loop())
            await asyncio.sleep(0)
            return Sent("p-1")

    answers: list[Sent] = []
    threads = [threading.Thread(target=lambda: answers.append(calls.send(Sender(), MESSAGE, 1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [Sent("p-1")] * 3
    assert len(loops) == 1


def test_a_coroutine_is_cut_off_after_its_deadline() -> None:
    """What it did until then nobody knows."""

    class Sender:
        async def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
            await asyncio.sleep(60)
            return Sent()

    with pytest.raises(TimeoutError) as cut:
        calls.send(Sender(), MESSAGE, -calls.GRACE_S + 0.01)
    assert calls.failure_of(cut.value) == Failure("unknown_outcome", "the channel did not answer in time")


def test_a_sender_that_returns_nothing_has_sent() -> None:
    """The platform's name for the message is optional."""

    class Sender:
        def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
            return None  # type: ignore[return-value]

    assert calls.send(Sender(), MESSAGE, 1) == Sent()


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (TransientError("busy"), Failure("transient", "busy")),
        (RateLimitedError("slow", retry_after_s=1.5), Failure("rate_limited", "slow", 1500)),
        (RateLimitedError("slow", retry_after_s=-1), Failure("rate_limited", "slow", 0)),
        (DestinationError("gone"), Failure("destination", "gone")),
        (PermanentError("never", fix="Shorten it."), Failure("permanent", "never. Shorten it.")),
        (UnknownOutcomeError("perhaps"), Failure("unknown_outcome", "perhaps")),
        (NotFoundError("no adapter"), Failure("transient", "NotFoundError: no adapter")),
        (ConnectionRefusedError("refused"), Failure("transient", "ConnectionRefusedError: refused")),
        (ConnectionResetError("reset"), Failure("unknown_outcome", "ConnectionResetError: reset")),
        (ValueError(), Failure("transient", "ValueError")),
    ],
)
def test_every_error_has_a_class(error: Exception, failure: Failure) -> None:
    """What broke after it may have arrived is of unknown outcome; what the contract does not know is transient."""
    assert calls.failure_of(error) == failure
