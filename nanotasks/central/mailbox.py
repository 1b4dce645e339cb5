"""The mailbox: what was sent on a channel without a stateless way to send, until somebody has seen it.

An item is put by any worker, once per delivery, and marked as shown when a viewer confirmed it. Numbers grow, but
on PostgreSQL a lower one may become visible after a higher one; a viewer that follows them looks at the unshown
ones too.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, update
from sqlalchemy.orm import Session

from nanotasks.central.base import table_of
from nanotasks.central.deliveries import Delivery, MailboxItem
from nanotasks.central.engine import insert_missing, rows_changed
from nanotasks.central.groups import AgentGroup
from nanotasks.domain.compact_json import dumps

_items = table_of(MailboxItem)
_item = _items.c
_deliveries, _groups = table_of(Delivery), table_of(AgentGroup)

_NUMBER = select(_item.id).where(_item.delivery_id == bindparam("delivery_id"))
_LAST = select(func.max(_item.id))
_UNSHOWN = (
    select(_item.id, _item.platform_id, _item.delivery_id)
    .where(
        _item.channel_type == bindparam("channel_type"),
        _item.platform_id.in_(bindparam("platform_ids", expanding=True)),
        _item.shown_at.is_(None),
    )
    .order_by(_item.id)
    .limit(bindparam("at_most"))
)
_LETTERS = (
    select(
        _item.id,
        _item.delivery_id,
        _item.platform_id,
        _item.kind,
        _item.content,
        _item.files,
        _item.created_at,
        _groups.c.name,
    )
    .outerjoin_from(_items, _deliveries, _deliveries.c.id == _item.delivery_id)
    .outerjoin(_groups, _groups.c.id == _deliveries.c.agent_group_id)
    .order_by(_item.id)
)
_NEWER = _LETTERS.where(_item.channel_type == bindparam("channel_type"), _item.id > bindparam("after")).limit(
    bindparam("at_most")
)
_THESE = _LETTERS.where(_item.id.in_(bindparam("items", expanding=True)))
_MARK_SHOWN = (
    update(_items)
    .where(_item.id.in_(bindparam("items", expanding=True)), _item.shown_at.is_(None))
    .values(shown_at=bindparam("now"))
)


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
    db: Session | Connection,
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
    db.execute(insert_missing(db, MailboxItem), values)
    return int(db.execute(_NUMBER, {"delivery_id": delivery_id}).scalar_one())


def last_item(db: Session | Connection) -> int:
    """The highest number so far, 0 for an empty mailbox."""
    return db.execute(_LAST).scalar() or 0


def unshown(
    db: Session | Connection, channel_type: str, platform_ids: Collection[str], limit: int
) -> list[tuple[int, str, str]]:
    """The oldest items of these chats that nobody has seen: number, platform_id, delivery_id."""
    wanted = {"channel_type": channel_type, "platform_ids": list(platform_ids), "at_most": limit}
    return [(item, platform_id, delivery_id) for item, platform_id, delivery_id in db.execute(_UNSHOWN, wanted)]


def newer(db: Session | Connection, channel_type: str, after: int, limit: int) -> list[Letter]:
    """The oldest items of a channel that came after number `after`, of any chat, seen or not."""
    return _letters(db.execute(_NEWER, {"channel_type": channel_type, "after": after, "at_most": limit}))


def letters(db: Session | Connection, items: Collection[int]) -> list[Letter]:
    """These items, oldest first."""
    return _letters(db.execute(_THESE, {"items": list(items)}))


def mark_shown(db: Session | Connection, items: Collection[int], now: int) -> int:
    """Somebody has seen these items; returns how many were news."""
    return rows_changed(db, _MARK_SHOWN, {"items": list(items), "now": now})


def _letters(rows: Iterable[Any]) -> list[Letter]:
    return [
        Letter(item, delivery_id, platform_id, kind, json.loads(content), json.loads(files), created_at, agent)
        for item, delivery_id, platform_id, kind, content, files, created_at, agent in rows
    ]
