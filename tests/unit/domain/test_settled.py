"""When nothing more is to come of a message."""

from __future__ import annotations

import pytest

from nanotasks.domain.settled import settled_state


@pytest.mark.parametrize(
    ("event", "routes", "delivering", "state"),
    [
        ("pending", [], False, None),
        ("dropped", [], False, "dropped"),
        ("dead", [], False, "dead"),
        ("routed", ["pending"], False, None),
        ("routed", ["appended"], False, None),
        ("routed", ["answered", "appended"], False, None),  # a second agent is still at it
        ("routed", ["answered", "completed"], False, "answered"),
        ("routed", ["completed", "context"], False, "completed"),
        ("routed", ["dead", "context"], False, "dead"),
        ("routed", ["completed", "dead"], False, "completed"),
        ("routed", ["context"], False, "context"),
        ("routed", ["answered"], True, None),  # one more reply is on its way
        ("routed", [], False, "completed"),  # a refused command leaves no route
    ],
)
def test_a_message_is_settled_when_all_its_routes_are(
    event: str, routes: list[str], delivering: bool, state: str | None
) -> None:
    """And no delivery into its chat is under way; it is called by the best of its routes."""
    assert settled_state(event, routes, delivering) == state
