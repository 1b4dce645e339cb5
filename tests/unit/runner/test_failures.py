"""Classes of provider errors and the decision to try again."""

from __future__ import annotations

import pytest

from agent_runner.failures import NETWORK, OTHER, OVERLOAD, RATE_LIMIT, SESSION, Backoff, ProviderError, classify
from agent_runner.failures import pause_before_retry as pause

BACKOFF = Backoff(retries=3, first_s=1.0, longest_s=3.0)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Exception("429 Too Many Requests"), RATE_LIMIT),
        (Exception("Rate limit exceeded"), RATE_LIMIT),
        (Exception('{"type":"overloaded_error"}'), OVERLOAD),
        (Exception("API Error: 529"), OVERLOAD),
        (Exception("503 Service Unavailable"), OVERLOAD),
        (Exception("read ECONNRESET"), NETWORK),
        (Exception("getaddrinfo EAI_AGAIN api"), NETWORK),
        (Exception("Request timed out"), NETWORK),
        (ConnectionResetError("x"), NETWORK),
        (TimeoutError(), NETWORK),
        (Exception("No conversation found with session ID: x"), SESSION),
        (Exception("ENOENT: no such file, open '/x/a.jsonl'"), SESSION),
        (Exception("Session abc not found"), SESSION),
        (Exception("invalid request"), OTHER),
        (Exception("port 4290 refused me"), OTHER),
        (ProviderError("whatever", OVERLOAD), OVERLOAD),
    ],
)
def test_errors_have_a_class(error: Exception, kind: str) -> None:
    """By type where there is one, else by text."""
    assert classify(error) == kind


@pytest.mark.parametrize("kind", [RATE_LIMIT, OVERLOAD, NETWORK])
def test_passing_trouble_is_tried_again_later_and_later(kind: str) -> None:
    """1, 2, then at most 3 seconds, each with up to half more; then no more."""
    pauses = [pause(Exception(), kind, [NETWORK] * n, BACKOFF) for n in range(4)]
    assert pauses[3] is None
    for value, least in zip(pauses[:3], (1.0, 2.0, 3.0), strict=True):
        assert value is not None
        assert least <= value <= least * 1.5


def test_the_service_may_say_when() -> None:
    """Within reason."""
    assert pause(ProviderError("", RATE_LIMIT, 0.5), RATE_LIMIT, [], BACKOFF) == 0.5
    assert pause(ProviderError("", RATE_LIMIT, 3600), RATE_LIMIT, [], BACKOFF) == 3.0


def test_a_lost_session_is_tried_once_in_a_new_one() -> None:
    """Also when something else had failed before."""
    assert pause(Exception(), SESSION, [], BACKOFF) == 0.0
    assert pause(Exception(), SESSION, [NETWORK], BACKOFF) == 0.0
    assert pause(Exception(), SESSION, [SESSION], BACKOFF) is None


def test_other_errors_are_final() -> None:
    """Trying again would only repeat them."""
    assert pause(Exception(), OTHER, [], BACKOFF) is None
