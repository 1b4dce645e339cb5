"""The mailbox: what was sent on a channel without a stateless way to send, until somebody has seen it.

An item is put by any worker, once per delivery, and marked as shown when a viewer confirmed it. Numbers grow, but
on PostgreSQL a lower one may become visible after a higher one; a viewer that follows them looks at the unshown
ones too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from nanotasks.central.base import dumps
from nanotasks.central.deliveries import Delivery, MailboxItem
from nanotasks.central.engine import insert_missing, rows_changed
from nanotasks.central.groups import AgentGroup


@dataclass(frozen=True)
class Letter:
    """One item as a viewer needs it; `agent` is the name of who sent it, where the ledger knows."""

    item: int
    delivery_id: str
    platform_id: str
    kind: str
    content: dict[str, Any]
    files: list[dict[str, Any]]
    created_at: int
    agent: str | None


def put(
    session: Session,
    *,
    channel_type: str,
    platform_id: str,
    thread_id: str | None,
    delivery_id: str,
    kind: str,
    content: Mapping[str, Any],
    files: Sequence[Mapping[str, Any]],
    now: int,
) -> int:
    """Put one delivery's item unless it is there already, and return its number."""
    values = {
        "channel_type": channel_type,
        "platform_id": platform_id,
        "thread_id": thread_id,
        "delivery_id": delivery_id,
        "kind": kind,
        "content": dumps(content),
        "files": dumps(files),
        "created_at": now,
    }
    session.execute(insert_missing(session, MailboxItem).values(values))
    return session.scalars(select(MailboxItem.id).where(MailboxItem.delivery_id == delivery_id)).one()


def last_item(session: Session) -> int:
    """The highest number so far, 0 for an empty mailbox."""
    return session.scalar(select(func.max(MailboxItem.id))) or 0


def unshown(
    session: Session, channel_type: str, platform_ids: Collection[str], limit: int
) -> list[tuple[int, str, str]]:
    """The oldest items of these chats that nobody has seen: number, platform_id, delivery_id."""
    rows = session.execute(
        select(MailboxItem.id, MailboxItem.platform_id, MailboxItem.delivery_id)
        .where(
            MailboxItem.channel_type == channel_type,
            MailboxItem.platform_id.in_(platform_ids),
            MailboxItem.shown_at.is_(None),
        )
        .order_by(MailboxItem.id)
        .limit(limit)
    )
    return [(item, platform_id, delivery_id) for item, platform_id, delivery_id in rows]


def newer(session: Session, channel_type: str, after: int, limit: int) -> list[Letter]:
    """The oldest items of a channel that came after number `after`, of any chat, seen or not."""
    return _letters(
        session, select(MailboxItem).where(MailboxItem.channel_type == channel_type, MailboxItem.id > after), limit
    )


def letters(session: Session, items: Collection[int]) -> list[Letter]:
    """These items, oldest first."""
    return _letters(session, select(MailboxItem).where(MailboxItem.id.in_(items)), len(items))


def mark_shown(session: Session, items: Collection[int], now: int) -> int:
    """Somebody has seen these items; returns how many were news."""
    return rows_changed(
        session,
        update(MailboxItem).where(MailboxItem.id.in_(items), MailboxItem.shown_at.is_(None)).values(shown_at=now),
    )


def _letters(session: Session, query: Select[MailboxItem], limit: int) -> list[Letter]:
    rows = session.execute(
        query.add_columns(AgentGroup.name)
        .outerjoin(Delivery, Delivery.id == MailboxItem.delivery_id)
        .outerjoin(AgentGroup, AgentGroup.id == Delivery.agent_group_id)
        .order_by(MailboxItem.id)
        .limit(limit)
    )
    return [_letter(item, agent) for item, agent in rows]


def _letter(item: MailboxItem, agent: str | None) -> Letter:
    return Letter(
        item=item.id,
        delivery_id=item.delivery_id,
        platform_id=item.platform_id,
        kind=item.kind,
        content=json.loads(item.content),
        files=json.loads(item.files),
        created_at=item.created_at,
        agent=agent,
    )
