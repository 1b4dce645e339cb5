"""When a message is settled: nothing more is to come of it by itself."""

from __future__ import annotations

from collections.abc import Collection

_END_STATES = ("answered", "completed", "dead", "context")


def settled_state(event_state: str, route_states: Collection[str], is_delivering: bool) -> str | None:
    """What became of a message, or None while something may still come.

    `dropped` and `dead` are the event's own ends. A routed event has ended when all its routes have and no
    delivery into its chat is on its way; it is then called by the best of its routes: answered, completed
    (the agent had nothing to say), dead, context (kept for later).
    """
    if event_state in {"dropped", "dead"}:
        return event_state
    if event_state != "routed" or is_delivering or not set(route_states) <= set(_END_STATES):
        return None
    return next((state for state in _END_STATES if state in route_states), "completed")
