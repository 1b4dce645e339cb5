"""What the agent is told of messages that were given up: chat rows from `system` (NanoClaw 2's form), which wake it.

An agent that answers a notice with one more message that dies would be told again, and so on for ever, a model
turn each time. So only a few notices wake an agent within ten minutes; the others are context for its next turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import func, select

from nanotasks.central.deliveries import Delivery
from nanotasks.clock import now_ms
from nanotasks.deliver.facts import Round
from nanotasks.deliver.host_messages import is_from_host
from nanotasks.deliver.ledger import AnyRow
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.delivery import Failure, death_notice
from nanotasks.session.rows import NewRow

PREFIX = "sys-"
WAKING = 3
# Of a flood of dead messages so many are told one by one, the others in one row.
SINGLY = 20
WINDOW_MS = 10 * 60_000


def notices_of(around: Round, dead: Sequence[AnyRow]) -> list[NewRow]:
    """One row for each dead delivery of the agent's own; a repetition gives the same ids."""
    own = [row for row in dead if not is_from_host(row.message_out_id)]
    if not own:
        return []
    waking = WAKING - _recently_told(around)
    told = [_notice(around, row, trigger=int(number < waking)) for number, row in enumerate(own[:SINGLY])]
    return told + ([_summary(around, own[SINGLY:])] if len(own) > SINGLY else [])


def _notice(around: Round, row: AnyRow, *, trigger: int) -> NewRow:
    failure = Failure(row.error_class or "permanent", row.error_text or "")
    answers_a_notice = (row.in_reply_to or "").startswith(PREFIX)
    text = death_notice(_subject(row), failure, row.attempts)
    return _told(around, row, text, trigger=0 if answers_a_notice else trigger)


def _summary(around: Round, rows: Sequence[AnyRow]) -> NewRow:
    first, last = rows[0], rows[-1]
    text = f"{len(rows)} more of your messages (#{first.seq} to #{last.seq}) could not be delivered."
    return _told(around, first, text, trigger=0)


def _told(around: Round, row: AnyRow, text: str, *, trigger: int) -> NewRow:
    return NewRow(
        id=f"{PREFIX}{row.id.partition('-')[2]}-{row.attempts}",
        kind="chat",
        content=dumps({"text": text, "sender": "system", "senderId": "system"}),
        timestamp_ms=now_ms(),
        channel_type="agent",
        platform_id=around.session.agent_group_id,
        trigger=trigger,
    )


def _subject(row: AnyRow) -> str:
    if row.kind == "system":
        return f"request #{row.seq}{_action(row.content)}"
    if row.channel_type == "agent":
        return f"message #{row.seq} to the agent {row.platform_id}"
    if row.platform_id and row.channel_type:
        return f"message #{row.seq} to {row.platform_id} on {row.channel_type}"
    return f"message #{row.seq}"


def _action(content: str) -> str:
    try:
        return f" ({str(json.loads(content)['action'])[:100]})"
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""


def _recently_told(around: Round) -> int:
    with around.db.read() as session:
        return session.scalars(
            select(func.count()).where(
                Delivery.session_id == around.session.id,
                Delivery.state == "dead",
                Delivery.projected_at >= now_ms() - WINDOW_MS,
            )
        ).one()
