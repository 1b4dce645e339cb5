"""Which answer an error is, and whether the platform should send the message again."""

from __future__ import annotations

import pytest

from nanotasks.channels.refusal import refusal
from nanotasks.errors import (
    ConfigError,
    DependencyDownError,
    InvalidError,
    NotFoundError,
    TooManyError,
    UnauthorizedError,
)


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (InvalidError(), 400, False),
        (UnauthorizedError(), 401, False),
        (NotFoundError(), 404, False),
        (TooManyError(retry_after_s=7), 429, True),
        (DependencyDownError(), 503, True),
        (ConfigError(), 503, True),  # such as a database without its schema
        (ValueError("private detail"), 500, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_the_sender_s_own_fault_is_final(error: Exception, status: int, again: bool) -> None:
    """Everything else may be sent again; what nobody foresaw is not told to strangers."""
    answer = refusal(error)
    assert answer.status == status
    assert (answer.retry_after_s is not None) is again
    assert set(answer.body) == {"code", "what", "why", "fix"}
    assert "private" not in str(answer.body)
