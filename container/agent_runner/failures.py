"""What to do when a provider fails: classes of errors, and the decision to try again. Pure but for the jitter.

| class | example | what happens |
|---|---|---|
| `rate_limit`, `overload`, `network` | 429, 529, connection reset | tried again after a pause, a few times |
| `session` | the stored conversation is gone | the continuation is dropped, tried once more in a new conversation |
| `other` | a refused request, a bug | told to the people who asked |
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

RATE_LIMIT, OVERLOAD, NETWORK, SESSION, OTHER = KINDS = ("rate_limit", "overload", "network", "session", "other")
_RETRYABLE = frozenset({RATE_LIMIT, OVERLOAD, NETWORK})

# The first that matches decides. The session patterns are NanoClaw 2's for Claude.
_PATTERNS = (
    (SESSION, r"no conversation found|ENOENT.*\.jsonl|session.*not found"),
    (RATE_LIMIT, r"rate.?limit|too many requests|\b429\b"),
    (OVERLOAD, r"overloaded|service unavailable|\b(?:503|529)\b"),
    (
        NETWORK,
        r"ECONN(?:RESET|REFUSED|ABORTED)|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN|socket hang up|fetch failed"
        r"|network error|connection (?:reset|refused|aborted|closed|error)|timed out|\b(?:502|504)\b",
    ),
)


class ProviderError(Exception):
    """A turn failed. `kind` is one of `KINDS`; `retry_after` is what the service asked for, in seconds."""

    def __init__(self, message: str, kind: str = OTHER, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after


class Backoff(NamedTuple):
    """How often and how soon a turn is tried again: `first_s`, doubling, with up to half of it added at random."""

    retries: int = 4
    first_s: float = 1.0
    longest_s: float = 30.0


def classify(error: BaseException) -> str:
    """The class of an error; a provider that knows more raises `ProviderError` or has its own `classify`."""
    if isinstance(error, ProviderError):
        return error.kind
    if isinstance(error, ConnectionError | TimeoutError):
        return NETWORK
    return next((kind for kind, pattern in _PATTERNS if re.search(pattern, str(error), re.IGNORECASE)), OTHER)


def pause_before_retry(error: BaseException, kind: str, earlier: Sequence[str], backoff: Backoff) -> float | None:
    """Seconds until a turn is tried again, or None to give up. `earlier` are the classes of its failures so far."""
    if kind == SESSION:
        return None if SESSION in earlier else 0.0
    tries = sum(failure in _RETRYABLE for failure in earlier)
    if kind not in _RETRYABLE or tries >= backoff.retries:
        return None
    asked = getattr(error, "retry_after", None)
    if asked is not None:
        return float(min(asked, backoff.longest_s))
    pause = min(backoff.first_s * 2**tries, backoff.longest_s)
    return float(pause * (1 + os.urandom(1)[0] / 512))
