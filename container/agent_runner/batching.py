"""Which due rows make the next prompt. Pure.

- Rows that ask for an answer (triggers) come in order of arrival, the oldest first; context never takes their place.
- Context alone never causes a turn.
- What room is left in a prompt goes to the newest context rows. Older ones are overtaken: they are acknowledged with
  that turn, because showing them later would show the chat out of order.
- A scheduled task is prompted alone, so that its result is its own; chat may be pushed into its turn afterwards.
- A row that was being worked on when the agent died, more than once, is suspected of being the reason. It is prompted
  alone, and nothing is claimed beside it: so it fails alone, and those that were with it are answered.

NanoClaw 2 takes the newest N rows of both kinds, which hides a question behind later chatter; for a backlog that
fits, and for one question after much chatter, the two rules give the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent_runner.rows import InboundRow


class Due(NamedTuple):
    """The rows of the next prompt in the order of the chat, and the ids of the context they overtake."""

    rows: tuple[InboundRow, ...] = ()
    overtaken: tuple[str, ...] = ()


# Deaths under which a row is suspected; the first may have been anybody's.
SUSPECT_TRIES = 2


def is_suspect(row: InboundRow) -> bool:
    """Whether this row may be what the agent dies of."""
    return row.tries >= SUSPECT_TRIES


def stands_alone(row: InboundRow) -> bool:
    """Whether nothing else is prompted with this row."""
    return row.is_task or is_suspect(row)


def apart(triggers: Sequence[InboundRow]) -> Sequence[InboundRow]:
    """The first of these rows that may be prompted together."""
    if triggers and stands_alone(triggers[0]):
        return triggers[:1]
    return triggers[: next((at for at, row in enumerate(triggers) if stands_alone(row)), len(triggers))]


def room_for_context(triggers: Sequence[InboundRow], limit: int) -> int:
    """How many context rows may join these triggers (oldest first, at most `limit` of them)."""
    return max(0, limit - len(triggers)) if triggers else 0


def in_order(triggers: Sequence[InboundRow], context: Sequence[InboundRow]) -> tuple[InboundRow, ...]:
    """Both kinds together, as they arrived; a row without a seq is older than all others."""
    return tuple(sorted((*triggers, *context), key=lambda row: -1 if row.seq is None else row.seq))
