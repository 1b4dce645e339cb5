"""Finds what is due: sessions with due rows, and deliveries that want another attempt or whose record is unfinished.

An alarm also meets the time at which an event that could not be routed is tried again; any host may route it.

The sweep asks it for all hosts, as the net; each host's alarm asks it for its own, at the moment something is due.
It reads indexes and opens no session file. What was signalled is not signalled again before `resignal_after_s`.

Times of sessions and deliveries are written by their host, so its alarm compares them with the host's own clock. Times
of events are the database's, since any host writes and reads them. The clocks of hosts may differ by hours.

A session whose `next_due_at` is 0 has rows that are due at once. They were signalled when they were written, and
most often the agent is at work on them, so an alarm passes over them and only the sweep looks again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from nanotasks.central import Database
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.events import ChatCounter, InboundEvent
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.owners import Owner, is_dead
from nanotasks.schedule import due as schedule_due
from nanotasks.settings import Settings
from nanotasks.sweep.lost import YOUNG_MS, Signal

AnySelect: TypeAlias = Select[*tuple[Any, ...]]


def due_signals(
    db: Database, settings: Settings, host_id: str | None = None, *, at_start: bool = False
) -> list[Signal]:
    """What to ring for due work, of one host (for its alarm) or of all; marks it as signalled.

    `at_start` takes for lost whatever was signalled until now: a worker has died with it.
    """
    find = _HERE if host_id else _EVERYWHERE
    with db.read_core() as connection:
        of_all = db.now_ms(connection)
        now = now_ms() if host_id else of_all
        known: dict[str, Any] = {
            "now": now,
            "again": now if at_start else now - round(settings.resignal_after_s * 1000),
            "young": now if at_start else now - YOUNG_MS,
        }
        known |= {"batch": settings.sweep_batch, "here": host_id}
        sessions = _pairs(connection, find.sessions, known)
        attempts = [(row[0], row[1], row[2]) for row in connection.execute(find.attempts, known)]
        unfinished = dict.fromkeys(pair for query in find.unfinished for pair in _pairs(connection, query, known))
        chats = _pairs(connection, _RETRIED_CHATS, known | {"now": of_all}) if host_id else []
        if host_id:
            unfinished |= dict.fromkeys(_abandoned(connection, host_id, known))
    if sessions or attempts or unfinished or chats:
        with db.write_core() as connection:
            _mark(connection, now, sessions, attempts, list(unfinished))
            for channel_type, platform_id in chats:
                connection.execute(_MARK_CHAT, {"channel": channel_type, "platform": platform_id, "now": of_all})
    signals: list[Signal] = [("wake", *one) for one in sessions]
    signals += [("attempt", delivery_id, owner, made + 1) for delivery_id, owner, made in attempts]
    signals += [("route", *one) for one in chats]
    signals += [("deliver", *one) for one in unfinished]
    return signals + list(schedule_due.signals(db, settings, host_id))


def next_due_ms(db: Database, settings: Settings, host_id: str) -> int | None:
    """When, by this host's clock, something of it is due next that nobody was signalled for yet; None for never."""
    with db.read_core() as connection:
        times = [connection.execute(query, {"here": host_id}).scalar() for query in _NEXT]
        retry_ms = connection.execute(_NEXT_RETRY).scalar()
        if retry_ms is not None:
            # The clock here is read last, so that no alarm rings before its time.
            times.append(retry_ms - db.now_ms(connection) + now_ms())
    times.append(schedule_due.next_ms(db, settings, host_id))
    return min((time for time in times if time is not None), default=None)


def _is(*states: str, table: str = "deliveries") -> ColumnElement[bool]:
    """The states written out, beside the condition of the partial index that holds them, so that SQLite uses it."""
    wanted = _written_out(states, table)
    return and_(_written_out(OPEN_STATES, table), wanted) if set(states) <= set(OPEN_STATES) else wanted


def _written_out(states: Sequence[str], table: str = "deliveries") -> ColumnElement[bool]:
    state: ColumnElement[str] = literal_column(f"{table}.state")
    words: list[ColumnElement[str]] = [literal_column(f"'{state}'") for state in states]
    return state.in_(words) if len(words) > 1 else state == words[0]


_NOW: BindParameter[int] = bindparam("now")
_AGAIN: BindParameter[int] = bindparam("again")
_YOUNG: BindParameter[int] = bindparam("young")
_BATCH: BindParameter[int] = bindparam("batch")
_THIS: BindParameter[str] = bindparam("here")


def _unsignalled(
    signalled: InstrumentedAttribute[int | None], since: InstrumentedAttribute[int | None] | None = None
) -> ColumnElement[bool]:
    """Not signalled lately, or not since it became due."""
    lately = or_(signalled.is_(None), signalled <= _AGAIN, signalled > _NOW)
    return lately if since is None else or_(lately, signalled < since)


_ahead = aliased(Delivery, name="ahead")
_FREE = ~exists().where(_ahead.lane == Delivery.lane, _is("retrying", "sending", table="ahead"))
# Messages that are not to be sent before their time; the others had their signal when they were entered.
_LATER = Delivery.next_attempt_at > Delivery.created_at
_FRESH_AND_DUE = or_(Delivery.next_attempt_at <= _YOUNG, and_(_LATER, Delivery.next_attempt_at <= _NOW))


@dataclass(frozen=True)
class _Queries:
    """`sessions` and `unfinished` give (session, host), `attempts` (delivery, host, attempts made)."""

    sessions: AnySelect
    attempts: AnySelect
    unfinished: tuple[AnySelect, ...]


def _queries(*, here: bool) -> _Queries:
    mine = Delivery.host_id == _THIS if here else Delivery.host_id.is_not(None)
    group_mine = AgentGroup.host_id == _THIS if here else AgentGroup.host_id.is_not(None)
    sessions = (
        select(AgentSession.id, AgentGroup.host_id)
        .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
        .where(
            AgentSession.next_due_at <= _NOW,
            AgentSession.next_due_at >= (1 if here else 0),
            AgentSession.status == "active",
            # A failed start has its own time, and is not to crowd out the others until then.
            or_(AgentSession.wake_retry_at.is_(None), AgentSession.wake_retry_at <= _NOW),
            _unsignalled(AgentSession.signalled_at, AgentSession.next_due_at),
            group_mine,
        )
        .order_by(func.coalesce(AgentSession.signalled_at, 0), AgentSession.next_due_at)
        .limit(_BATCH)
    )
    attempts = (
        select(Delivery.id, Delivery.host_id, Delivery.attempts)
        .where(
            _is("retrying", "parked"),
            Delivery.next_attempt_at <= _NOW,
            _unsignalled(Delivery.signalled_at, Delivery.next_attempt_at),
            mine,
        )
        .order_by(func.coalesce(Delivery.signalled_at, 0), Delivery.next_attempt_at)
        .limit(_BATCH)
    )
    unfinished = (
        # Rows never tried, unless a row of their lane is being sent or is to be tried again.
        and_(_is("pending"), _FRESH_AND_DUE, _FREE),
        # Sends that are too old for anybody to finish them.
        and_(_is("sending"), Delivery.next_attempt_at <= _NOW),
        # Outcomes that are not in the session's file yet.
        and_(_is("delivered", "dead"), Delivery.projected_at.is_(None), Delivery.finished_at <= _YOUNG),
    )
    return _Queries(
        sessions,
        attempts,
        tuple(
            select(Delivery.session_id, Delivery.host_id)
            .where(condition, _unsignalled(Delivery.signalled_at, Delivery.next_attempt_at), mine)
            .group_by(Delivery.session_id, Delivery.host_id)
            .order_by(func.min(func.coalesce(Delivery.signalled_at, 0)), func.min(Delivery.created_at))
            .limit(_BATCH)
            for condition in unfinished
        ),
    )


_EVERYWHERE = _queries(here=False)
_HERE = _queries(here=True)
_SENDING_HERE = select(Delivery.session_id, Delivery.sending_owner).where(
    _is("sending"), Delivery.host_id == _THIS, _unsignalled(Delivery.signalled_at, Delivery.send_started_at)
)
_NEXT_SESSION = (
    select(func.min(AgentSession.next_due_at))
    .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
    .where(
        AgentGroup.host_id == _THIS,
        AgentSession.status == "active",
        AgentSession.next_due_at > 0,
        or_(AgentSession.signalled_at.is_(None), AgentSession.signalled_at < AgentSession.next_due_at),
        # A start that is put off beyond that is the sweep's to find.
        or_(AgentSession.wake_retry_at.is_(None), AgentSession.wake_retry_at <= AgentSession.next_due_at),
    )
)
_NEXT_ATTEMPT = select(func.min(Delivery.next_attempt_at)).where(
    Delivery.host_id == _THIS,
    _is("retrying", "parked"),
    or_(Delivery.signalled_at.is_(None), Delivery.signalled_at < Delivery.next_attempt_at),
)
_NEXT_LATER = select(func.min(Delivery.next_attempt_at)).where(
    Delivery.host_id == _THIS,
    _is("pending"),
    _LATER,
    _FREE,
    or_(Delivery.signalled_at.is_(None), Delivery.signalled_at < Delivery.next_attempt_at),
)
# Written out, so that SQLite sees that the partial index fits.
_WAITS_FOR_ITS_RETRY = text("inbound_events.state = 'pending' AND inbound_events.next_try_at IS NOT NULL")
_UNSIGNALLED_RETRY = or_(ChatCounter.signalled_at.is_(None), ChatCounter.signalled_at < InboundEvent.next_try_at)
_OF_CHAT = and_(
    ChatCounter.channel_type == InboundEvent.channel_type, ChatCounter.platform_id == InboundEvent.platform_id
)
_RETRIED_CHATS = (
    select(InboundEvent.channel_type, InboundEvent.platform_id)
    .join(ChatCounter, _OF_CHAT)
    .where(_WAITS_FOR_ITS_RETRY, InboundEvent.next_try_at <= _NOW, _UNSIGNALLED_RETRY)
    .distinct()
    .limit(_BATCH)
)
_MARK_CHAT = (
    update(ChatCounter)
    .where(ChatCounter.channel_type == bindparam("channel"), ChatCounter.platform_id == bindparam("platform"))
    .values(signalled_at=_NOW)
)
_NEXT_RETRY = (
    select(func.min(InboundEvent.next_try_at))
    .join(ChatCounter, _OF_CHAT)
    .where(_WAITS_FOR_ITS_RETRY, _UNSIGNALLED_RETRY)
)
_NEXT = (_NEXT_SESSION, _NEXT_ATTEMPT, _NEXT_LATER)


def _pairs(connection: Connection, query: AnySelect, known: dict[str, Any]) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in connection.execute(query, known)]


def _abandoned(connection: Connection, host_id: str, known: dict[str, Any]) -> list[tuple[str, str]]:
    """Sends of processes of this host that are dead: nobody has to wait for their deadline."""
    owners = [(row[0], Owner.parse(row[1] or "")) for row in connection.execute(_SENDING_HERE, known)]
    return [(session_id, host_id) for session_id, owner in owners if owner and is_dead(owner, host_id)]


def _mark(
    connection: Connection,
    now: int,
    sessions: Sequence[tuple[str, str]],
    attempts: Sequence[tuple[str, str, int]],
    unfinished: Sequence[tuple[str, str]],
) -> None:
    session_ids = [session_id for session_id, _ in sessions]
    connection.execute(update(AgentSession).where(AgentSession.id.in_(session_ids)).values(signalled_at=now))
    signalled = update(Delivery).values(signalled_at=now)
    connection.execute(signalled.where(Delivery.id.in_([delivery_id for delivery_id, _, _ in attempts])))
    theirs = Delivery.session_id.in_([session_id for session_id, _ in unfinished])
    for rows in (
        _written_out(("pending",)),
        _written_out(("sending",)),
        and_(_is("delivered", "dead"), Delivery.projected_at.is_(None)),
    ):
        connection.execute(signalled.where(rows, theirs))
