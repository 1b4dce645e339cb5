"""What a conversation says."""

from __future__ import annotations

from nanotasks.domain import access, routing
from nanotasks.ops.chat.faces import Said, outcome

REASONS = {
    value
    for module in (routing, access)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
} | {"unknown_sender_strict"}


def test_every_reason_for_a_drop_has_words() -> None:
    """Nobody should have to know what `not_mentioned` is."""
    assert len(REASONS) >= 10
    for reason in REASONS:
        told = outcome(Said("x"), "dropped", reason)
        assert told is not None and reason not in told and "_" not in told.partition("`")[0]
