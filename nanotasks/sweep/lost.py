"""Finds rows whose signal was lost: accepted events nobody routed, routes nobody appended, and routes nobody ended.

Each chat and each session is signalled once, the oldest first, and not again before `resignal_after_s`. A row that
was written a moment ago still has its own signal on the way and is left alone.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, func, or_, select, text, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from nanotasks.central import Database
from nanotasks.central.events import ChatCounter, InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.settings import Settings

# The arguments of `signals.ring`: a kind and its ids.
Signal: TypeAlias = tuple[str, Any, *tuple[Any, ...]]
Column: TypeAlias = InstrumentedAttribute[int] | InstrumentedAttribute[int | None]

YOUNG_MS = 1000
# A route may wait long for its end, while a turn goes on or a reply to it is tried again.
UNSETTLED_MS = 5_000


def lost_signals(db: Database, settings: Settings, *, at_start: bool = False) -> list[Signal]:
    """What to ring for rows that wait without a signal; marks them as signalled.

    `at_start` takes for lost whatever was signalled until now: a worker has died with it.
    """
    with db.read() as session:
        now = db.now_ms(session)
        again = now if at_start else now - round(settings.resignal_after_s * 1000)
        young = now if at_start else now - YOUNG_MS
        chats = _chats(session, now, again, young, settings.sweep_batch)
        sessions = _sessions(session, now, again, young, settings.sweep_batch)
        unsettled = _unsettled(session, now, now - UNSETTLED_MS, settings.sweep_batch)
    if chats or sessions or unsettled:
        with db.write() as session:
            _mark(session, chats, [session_id for session_id, _ in (*sessions, *unsettled)], now)
    signals: list[Signal] = [("route", *chat) for chat in chats]
    signals += [("append", *one) for one in sessions]
    return signals + [("deliver", *one) for one in unsettled]


def _chats(session: Session, now: int, again: int, young: int, limit: int) -> list[tuple[str, str]]:
    chat = (InboundEvent.channel_type, InboundEvent.platform_id)
    query = (
        select(*chat)
        .join(
            ChatCounter,
            (ChatCounter.channel_type == InboundEvent.channel_type)
            & (ChatCounter.platform_id == InboundEvent.platform_id),
        )
        .where(
            InboundEvent.state == "pending",
            _is_of_age(InboundEvent.received_at, now, young),
            or_(InboundEvent.next_try_at.is_(None), InboundEvent.next_try_at <= now),
            _unsignalled(ChatCounter.signalled_at, now, again),
        )
        .group_by(*chat)
        # Chats that were signalled before and did not move go behind those that were not.
        .order_by(func.min(func.coalesce(ChatCounter.signalled_at, 0)), func.min(InboundEvent.received_at))
        .limit(limit)
    )
    return [(row.channel_type, row.platform_id) for row in session.execute(query)]


def _sessions(session: Session, now: int, again: int, young: int, limit: int) -> list[tuple[str, str]]:
    query = (
        select(InboundRoute.session_id, AgentGroup.host_id)
        .join(AgentGroup, AgentGroup.id == InboundRoute.agent_group_id)
        .where(
            InboundRoute.state == "pending",
            _is_of_age(InboundRoute.created_at, now, young),
            _unsignalled(InboundRoute.signalled_at, now, again),
            AgentGroup.host_id.is_not(None),
        )
        .group_by(InboundRoute.session_id, AgentGroup.host_id)
        # Sessions whose files cannot be written were signalled before, and go behind those that were not.
        .order_by(func.min(func.coalesce(InboundRoute.signalled_at, 0)), func.min(InboundRoute.id))
        .limit(limit)
    )
    return [(row.session_id, row.host_id or "") for row in session.execute(query)]


def _unsettled(session: Session, now: int, before: int, limit: int) -> list[tuple[str, str]]:
    """Sessions with a route that has not ended for a while: its settlement may have been interrupted, or overtaken."""
    query = (
        select(InboundRoute.session_id, AgentGroup.host_id)
        .join(AgentSession, AgentSession.id == InboundRoute.session_id)
        .join(AgentGroup, AgentGroup.id == InboundRoute.agent_group_id)
        .where(
            # Written out, so that SQLite sees that the partial index fits.
            text("inbound_routes.state = 'appended'"),
            _is_of_age(InboundRoute.appended_at, now, before),
            _unsignalled(InboundRoute.signalled_at, now, before),
            # An agent may answer before its message is marked as appended: then the session counts as due.
            or_(AgentSession.next_due_at.is_(None), AgentSession.next_due_at <= before),
            AgentGroup.host_id.is_not(None),
        )
        .group_by(InboundRoute.session_id, AgentGroup.host_id)
        .order_by(func.min(func.coalesce(InboundRoute.signalled_at, 0)), func.min(InboundRoute.id))
        .limit(limit)
    )
    return [(row.session_id, row.host_id or "") for row in session.execute(query)]


def _unsignalled(signalled: InstrumentedAttribute[int | None], now: int, again: int) -> ColumnElement[bool]:
    """Not signalled since `again`; a signal of the future was marked by a clock that was put back since."""
    return or_(signalled.is_(None), signalled <= again, signalled > now)


def _is_of_age(written: Column, now: int, before: int) -> ColumnElement[bool]:
    """Written until `before`; what was written in the future was so by a clock that was put back since."""
    return or_(written <= before, written > now)


def _mark(session: Session, chats: list[tuple[str, str]], sessions: list[str], now: int) -> None:
    if chats:
        chat = tuple_(ChatCounter.channel_type, ChatCounter.platform_id)
        session.execute(update(ChatCounter).where(chat.in_(chats)).values(signalled_at=now))
    if sessions:
        waiting = InboundRoute.state.in_(("pending", "appended")) & InboundRoute.session_id.in_(sessions)
        session.execute(update(InboundRoute).where(waiting).values(signalled_at=now))
