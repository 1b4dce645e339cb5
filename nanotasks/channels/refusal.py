"""How a receiver answers when a message was not taken: which status, and whether to send it again.

Whatever is not surely the message's own fault may be sent again, so that nothing is lost by our trouble.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nanotasks.errors import (
    ConflictError,
    InvalidError,
    NanotasksError,
    NotFoundError,
    TooManyError,
    UnauthorizedError,
)

_RETRY_AFTER_S = 2.0
_STATUS_BY_FAULT: tuple[tuple[type[NanotasksError], int], ...] = (
    (InvalidError, 400),
    (UnauthorizedError, 401),
    (NotFoundError, 404),
    (ConflictError, 409),
)


@dataclass(frozen=True)
class Refusal:
    """An HTTP status, the body `{code, what, why, fix}`, and the seconds after which to try again, if that helps."""

    status: int
    body: dict[str, Any]
    retry_after_s: float | None = None


def refusal(error: Exception) -> Refusal:
    """The answer to an error: 4xx for the sender's fault, 429 for too much, 503 and 500 for our own."""
    if isinstance(error, TooManyError):
        return Refusal(429, error.as_json(), error.retry_after_s)
    if not isinstance(error, NanotasksError):
        # Its text may hold anything, so it goes to the log only.
        body = {
            "code": "internal",
            "what": "The message was not taken.",
            "why": "Something went wrong in the gateway; its log says what.",
            "fix": "Send it again.",
        }
        return Refusal(500, body, _RETRY_AFTER_S)
    for fault, status in _STATUS_BY_FAULT:
        if isinstance(error, fault):
            return Refusal(status, error.as_json())
    return Refusal(503, error.as_json(), _RETRY_AFTER_S)
