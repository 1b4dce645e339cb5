"""The pending events of one chat, in accept order: read ahead without a lock, and again under the chat's lock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, bindparam, select, text

from nanotasks.central.base import table_of
from nanotasks.central.events import ChatCounter, InboundEvent
from nanotasks.channels.contract import Address
from nanotasks.domain.content import Content
from nanotasks.domain.engage import pattern_matches
from nanotasks.intake.prepared import read_address

Chat = tuple[str, str]

_event = table_of(InboundEvent).c
_IN_ORDER = (
    select(_event.id)
    .where(
        _event.channel_type == bindparam("channel_type"),
        _event.platform_id == bindparam("platform_id"),
        # Written out, so that SQLite sees that the partial index fits.
        text("state = 'pending'"),
    )
    .order_by(_event.accept_order)
    .limit(bindparam("at_most"))
)
_WHOLE = _IN_ORDER.with_only_columns(
    _event.id,
    _event.thread_id,
    _event.platform_message_id,
    _event.kind,
    _event.content,
    _event.is_mention,
    _event.is_group,
    _event.reply_to,
    _event.tries,
    _event.first_failed_at,
    _event.next_try_at,
)
_LOCK = (
    select(ChatCounter.last_order)
    .where(ChatCounter.channel_type == bindparam("channel_type"), ChatCounter.platform_id == bindparam("platform_id"))
    .with_for_update()
)


@dataclass(frozen=True)
class PendingEvent:
    """An accepted message as it stands in the intake log; the fields are in the order in which they are read."""

    id: str
    thread_id: str | None
    platform_message_id: str
    kind: str
    raw_content: str
    is_mention: int
    is_group: int | None
    reply_to_text: str | None
    tries: int
    first_failed_at: int | None
    next_try_at: int | None

    @cached_property
    def content(self) -> Content:
        return Content.parse(self.raw_content)

    @property
    def reply_to(self) -> Address | None:
        return None if self.reply_to_text is None else read_address(self.reply_to_text)


def read_pending(connection: Connection, chat: Chat, limit: int) -> list[PendingEvent]:
    """The oldest pending events of a chat."""
    rows: Iterable[Any] = connection.execute(_WHOLE, _named(chat, limit))
    return [PendingEvent(*row) for row in rows]


def lock_chat(connection: Connection, chat: Chat, limit: int) -> list[str]:
    """Make this transaction the only router of a chat, and return its oldest pending events' ids.

    On SQLite the transaction holds the whole database already.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(_LOCK, _named(chat))
    return list(connection.execute(_IN_ORDER, _named(chat, limit)).scalars())


def _named(chat: Chat, limit: int = 0) -> dict[str, object]:
    return {"channel_type": chat[0], "platform_id": chat[1], "at_most": limit}


@dataclass
class PatternVerdicts:
    """Engage patterns run on texts, before the lock is taken: a slow one must not hold up other chats."""

    timeout_s: float
    _known: dict[tuple[str, str], bool] = field(default_factory=dict)

    def matches(self, pattern: str, said: str) -> bool:
        """Whether the pattern is found in the text; remembered, so that it is run once."""
        if (pattern, said) not in self._known:
            self._known[pattern, said] = pattern_matches(pattern, said, self.timeout_s)
        return self._known[pattern, said]

    def run_ahead(
        self, patterns: Iterable[str], events: Sequence[PendingEvent], budget_s: float
    ) -> Sequence[PendingEvent]:
        """Run every pattern on every event, at least the first; the events there was time for."""
        listed = list(patterns)
        if not listed:
            return events
        deadline = time.monotonic() + budget_s
        for number, event in enumerate(events):
            if number and time.monotonic() > deadline:
                return events[:number]
            for pattern in listed:
                self.matches(pattern, event.content.text)
        return events
