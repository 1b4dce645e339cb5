"""Calling a channel's sender: plain function or coroutine, with a deadline, and every way to fail as one `Failure`.

Coroutines run in one event loop per process, in a thread of its own, so that a sender may keep its connections from
one call to the next. A coroutine is cancelled a moment after its deadline; a plain function cannot be, and one that
overstays is written off by the ledger as overdue.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nanotasks.channels.contract import OutboundMessage, RateLimitedError, Sender, SendError, Sent
from nanotasks.domain.delivery import Failure

T = TypeVar("T")

GRACE_S = 1.0

# What may have reached the platform before it broke.
_UNKNOWN_OUTCOME = (TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError)


def send(sender: Sender, message: OutboundMessage, deadline_s: float) -> Sent:
    """One send; raises what the sender raises, and `TimeoutError` when a coroutine overstays its deadline."""
    sent = finish(lambda: sender.send(message, deadline_s), deadline_s + GRACE_S)
    return sent if isinstance(sent, Sent) else Sent()


def finish(call: Callable[[], Awaitable[T] | T], timeout_s: float) -> T:
    """Call a function that may be a coroutine function, and wait for its result."""
    result = call()
    if not isinstance(result, Awaitable):
        return result
    awaited: Awaitable[T] = result
    return asyncio.run_coroutine_threadsafe(_within(awaited, timeout_s), _loop()).result()


async def _within(awaitable: Awaitable[T], timeout_s: float) -> T:
    return await asyncio.wait_for(awaitable, timeout_s)


def failure_of(error: BaseException) -> Failure:
    """What a failed send means. An error that the contract does not know is the adapter's trouble: try again."""
    if isinstance(error, RateLimitedError):
        return Failure("rate_limited", str(error), max(0, round(error.retry_after_s * 1000)))
    if isinstance(error, SendError):
        return Failure(error.error_class, str(error))
    if isinstance(error, RecursionError | UnicodeError):
        return Failure("permanent", "the content cannot be written in the form that the channel sends")
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, TimeoutError) and not str(error):
        text = "the channel did not answer in time"
    return Failure("unknown_outcome" if isinstance(error, _UNKNOWN_OUTCOME) else "transient", text)


_guard = threading.Lock()
_running: asyncio.AbstractEventLoop | None = None


def _loop() -> asyncio.AbstractEventLoop:
    global _running
    with _guard:
        if _running is None:
            _running = asyncio.new_event_loop()
            threading.Thread(target=_running.run_forever, name="senders", daemon=True).start()
        return _running


def _start_afresh() -> None:
    global _guard, _running
    _guard, _running = threading.Lock(), None


# A loop belongs to the process that made it.
os.register_at_fork(after_in_child=_start_afresh)
