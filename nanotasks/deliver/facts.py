"""What one round of delivery knows: the session, and the doors it goes through."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from sqlalchemy import bindparam, exists, select

from nanotasks.central.base import in_states, table_of
from nanotasks.central.chats import Chat
from nanotasks.central.engine import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver.ledger import Ledger, deliveries
from nanotasks.domain.delivery import Patience
from nanotasks.owners import this_owner
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits
from nanotasks.settings import Settings

# The arguments of `signals.ring`: a kind and its ids.
Signal: TypeAlias = tuple[str, *tuple[Any, ...]]

# A send counts as overdue so long after its deadline, though its process lives.
OVERDUE_MARGIN_S = 30.0


@dataclass(frozen=True)
class SessionFacts:
    """One session on this host when the round began.

    `outbound_mark` and `outbound_mark_id` are the last of its outbound rows that stands in the ledger,
    `waiting_lanes` those with first attempts to make; `is_sending` tells that a row of it is being sent, or was;
    without `has_agent` nobody writes outbound.db. `own_chat` is a channel type and a platform id.
    """

    id: str
    agent_group_id: str
    host_id: str
    folder: SessionFolder
    outbound_mark: int
    outbound_mark_id: str | None
    waiting_lanes: tuple[str, ...]
    is_sending: bool
    has_agent: bool
    own_chat: tuple[str | None, str | None]


_sessions, _groups = table_of(AgentSession).c, table_of(AgentGroup).c
_chats, _instances = table_of(Chat).c, table_of(Instance).c
_FACTS = (
    select(
        _sessions.id,
        _sessions.agent_group_id,
        _sessions.outbound_mark,
        _sessions.outbound_mark_id,
        _groups.host_id,
        exists().where(deliveries.c.session_id == _sessions.id, in_states("deliveries", "sending")).label("is_sending"),
        _chats.channel_type,
        _chats.platform_id,
        exists().where(_instances.session_id == _sessions.id, _instances.ended_at.is_(None)).label("has_agent"),
    )
    .join_from(table_of(AgentSession), table_of(AgentGroup), _groups.id == _sessions.agent_group_id)
    .outerjoin(table_of(Chat), _chats.id == _sessions.messaging_group_id)
    .where(_sessions.id == bindparam("of_session"))
)
_WAITING_LANES = (
    select(deliveries.c.lane)
    .where(
        deliveries.c.session_id == bindparam("of_session"),
        in_states("deliveries", "pending"),
        deliveries.c.next_attempt_at <= bindparam("now"),
    )
    .distinct()
)


class Signals(Protocol):
    """What delivery needs of `nanotasks.signals`."""

    def ring(self, kind: str, *ids: Any) -> None: ...

    def poke(self, topic: str, payload: Mapping[str, Any] | None = None) -> None: ...

    def wait_for_token(self, bucket: str, rate_per_s: float, burst: float = 1.0) -> float: ...


@dataclass(frozen=True)
class Round:
    """One round of delivery over one session."""

    db: Database
    settings: Settings
    session: SessionFacts
    ledger: Ledger
    signals: Signals

    def now_ms(self) -> int:
        """The time by which attempts are planned."""
        return now_ms()

    @functools.cached_property
    def patience(self) -> Patience:
        settings = self.settings
        return Patience(
            backoff_ms=round(settings.delivery_backoff_s * 1000),
            backoff_max_ms=round(settings.delivery_backoff_max_s * 1000),
            lane_hold_ms=round(settings.lane_hold_s * 1000),
            horizon_ms=round(settings.delivery_horizon_s * 1000),
        )

    @functools.cached_property
    def read_limits(self) -> ReadLimits:
        return ReadLimits.of(self.settings)


def begin_round(
    db: Database, settings: Settings, session_id: str, *, signals: Signals, task_id: str | None = None
) -> Round | None:
    """A round over a session whose agent group lives on this host, or None for any other."""
    facts = _session_facts(db, settings, session_id)
    if facts is None:
        return None
    overdue_ms = round((settings.delivery_timeout_s + OVERDUE_MARGIN_S) * 1000)
    ledger = Ledger(db, this_owner(settings.host_id), overdue_ms=overdue_ms, task_id=task_id)
    return Round(db, settings, facts, ledger, signals)


def _session_facts(db: Database, settings: Settings, session_id: str) -> SessionFacts | None:
    with db.read_core() as connection:
        row = connection.execute(_FACTS, {"of_session": session_id}).one_or_none()
        if row is None or row.host_id != settings.host_id:
            return None
        lanes = connection.execute(_WAITING_LANES, {"of_session": session_id, "now": now_ms()})
        waiting = tuple(lane for (lane,) in lanes)
    return SessionFacts(
        id=row.id,
        agent_group_id=row.agent_group_id,
        host_id=row.host_id,
        folder=SessionFolder.of(settings.files_dir, row.agent_group_id, row.id),
        outbound_mark=row.outbound_mark,
        outbound_mark_id=row.outbound_mark_id,
        waiting_lanes=waiting,
        is_sending=bool(row.is_sending),
        has_agent=bool(row.has_agent),
        own_chat=(row.channel_type, row.platform_id),
    )
