"""After the sends: telling the agent what became of its messages, and the central database what the agent did.

    1. inbound.db, one commit    `delivered` rows, notices of deaths, the acked rows completed, and what follows the
                                 scheduled tasks among them (`schedule/`)
    2. the outbox                files of delivered messages are removed
    3. central, one commit       `projected_at` of those deliveries, how routes ended, and the session's due time

Each step may be repeated, so a crash between two of them is mended by the next round: deliveries without
`projected_at` are due work, and a route that is not ended is compared with its row each time; one whose row is gone is
appended once more. Acks are read only
when no message stands beside them unentered: the runner commits its answer together with the ack, and a message is
called answered only when its answer is out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, case, func, select, update

from nanotasks import faults, logs
from nanotasks.central.base import in_states, table_of
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundRoute
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.deliver import outbox
from nanotasks.deliver.entry import Entry
from nanotasks.deliver.facts import Round, Signal
from nanotasks.deliver.host_messages import enter_host_message
from nanotasks.deliver.ledger import AnyRow
from nanotasks.deliver.notices import notices_of
from nanotasks.domain.delivery import dead_reason, route_end, shared_end
from nanotasks.schedule.project import follow
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.rows import Delivered, DeliveryStatus, InboundRow
from nanotasks.wake.due import DueLook, announced, look

_log = logs.get("deliver")

BATCH = 500
_DONE = frozenset({"completed", "failed"})
UNANSWERED = "Sorry, your message could not be answered."

_deliveries, _routes = table_of(Delivery), table_of(InboundRoute)
_row, _route = _deliveries.c, _routes.c
_ENDED = (
    select(
        _row.id,
        _row.message_out_id,
        _row.seq,
        _row.state,
        _row.attempts,
        _row.kind,
        _row.channel_type,
        _row.platform_id,
        _row.in_reply_to,
        _row.platform_message_id,
        _row.error_class,
        _row.error_text,
        _row.content.contains('"files"').label("names_files"),
        # Of a request that died its name is told; of other contents nothing, and they may be large.
        case(
            ((_row.state == "dead") & (_row.kind == "system") & (func.length(_row.content) < 10_000), _row.content),
            else_="",
        ).label("content"),
    )
    .where(
        _row.session_id == bindparam("of_session"),
        in_states("deliveries", "delivered", "dead"),
        _row.projected_at.is_(None),
    )
    .order_by(_row.seq)
    .limit(BATCH)
)
_UNFINISHED_ROUTES = select(
    _route.id,
    _route.inbound_id,
    _route.reply_channel_type,
    _route.reply_platform_id,
    _route.reply_thread_id,
).where(_route.session_id == bindparam("of_session"), in_states("inbound_routes", "appended"))

_REPLIES = select(_row.in_reply_to, _row.state).where(
    _row.session_id == bindparam("of_session"), _row.in_reply_to.in_(bindparam("answered", expanding=True))
)
_SET_PROJECTED = (
    update(_deliveries).where(_row.id.in_(bindparam("ids", expanding=True))).values(projected_at=bindparam("now"))
)
_END_ROUTE = (
    update(_routes)
    .where(_route.id == bindparam("route"), _route.state == "appended")
    .values(state=bindparam("end"), finished_at=bindparam("now"), error=bindparam("why"))
)

_APPEND_AGAIN = (
    update(_routes)
    .where(_route.id.in_(bindparam("lost", expanding=True)), _route.state == "appended")
    .values(state="pending", appended_at=None)
)


@dataclass
class Settled:
    """What a settlement leaves to be rung, and whether there is more to do at once."""

    signals: list[Signal] = field(default_factory=list)
    more: bool = False


def settle(around: Round, entry: Entry) -> Settled:
    """Project what ended, sync what the agent acked. Raises `SessionFileError` when inbound.db cannot be used."""
    session_id = around.session.id
    with around.db.read_core() as connection:
        ended = connection.execute(_ENDED, {"of_session": session_id}).all()
        routes = connection.execute(_UNFINISHED_ROUTES, {"of_session": session_id}).all()
    notices = notices_of(around, [row for row in ended if row.state == "dead"])
    waking = any(notice.trigger for notice in notices)
    if not around.session.folder.inbound_db.exists():
        # Somebody spoke in the agent's place before the first message came.
        around.session.folder.create()
    with open_inbound(around.session.folder) as inbound:
        open_rows = inbound.open_rows()
        open_ids = set(open_rows)
        acks = entry.acks(open_ids.union(row.inbound_id for row in routes))
        done = [one for one, status in (acks or {}).items() if status in _DONE and one in open_ids]
        tasks = entry.taken([one for one in acks or {} if open_rows.get(one) == "task"], acks or {})
        due = followed = None
        if ended or done or tasks:
            # A notice that wakes nobody makes nothing due, and nobody would take that back while the agent lives.
            with announced(around.db, inbound, session_id) if waking else inbound.transaction():
                if tasks:
                    followed = follow(around.db, around.settings, session_id, inbound, tasks)
                inbound.record_deliveries(_told(row) for row in ended)
                inbound.insert(notices)
                inbound.complete(done)
                faults.point("settle.before_inbound")
                # Set in the commit that ends the routes; until then the session counts as due, which costs a look.
                due = look(around.db, inbound, session_id) if done else None
        # Without a look at the acks nobody knows yet whether a completed row was answered.
        closed = {} if acks is None else _closed(inbound, routes, open_ids.difference(done))
        gone = [] if acks is None else _gone(inbound, routes, open_ids, closed)
        if due is None and closed:
            # An agent may have answered before its message was marked as appended, and with that as due.
            due = look(around.db, inbound, session_id)
    faults.point("settle.after_inbound")
    for row in ended:
        if row.state == "delivered" and row.names_files:
            outbox.clear(around, row.message_out_id)
    faults.point("settle.after_outbox")
    if followed is not None:
        followed.mark(around.db)
    left = [route for route in routes if route.inbound_id in closed]
    signals: list[Signal] = [*followed.signals] if followed else []
    signals += _record(around, ended, left, closed, acks or {}, due)
    faults.point("settle.after_record")
    if gone:
        signals += _append_again(around, gone)
    if waking:
        signals.append(("wake", session_id, around.session.host_id))
    return Settled(signals, more=acks is None or len(ended) == BATCH)


def _told(row: AnyRow) -> Delivered:
    if row.state == "delivered":
        return Delivered(row.message_out_id, now_ms(), row.platform_message_id)
    return Delivered(row.message_out_id, now_ms(), status=DeliveryStatus.FAILED)


def _closed(inbound: Inbound, routes: Sequence[AnyRow], still_open: Collection[str]) -> dict[str, InboundRow]:
    """The rows of the routes that are not open any more."""
    found = {}
    for route in routes:
        if route.inbound_id not in still_open:
            row = inbound.row(route.inbound_id)
            if row is not None:
                found[route.inbound_id] = row
    return found


def _gone(
    inbound: Inbound, routes: Sequence[AnyRow], open_ids: Collection[str], closed: Mapping[str, InboundRow]
) -> list[AnyRow]:
    """Routes whose row is not there any more: the file was restored from an older copy, or somebody deleted it."""
    known = {*open_ids, *closed}
    return [one for one in routes if one.inbound_id not in known and inbound.row(one.inbound_id) is None]


def _append_again(around: Round, routes: Sequence[AnyRow]) -> list[Signal]:
    _log.warning("rows_gone", session=around.session.id, inbound=[route.inbound_id for route in routes])
    with around.db.write_core() as connection:
        connection.execute(_APPEND_AGAIN, {"lost": [route.id for route in routes]})
    return [("append", around.session.id, around.session.host_id)]


def _record(
    around: Round,
    ended: Sequence[AnyRow],
    routes: Sequence[AnyRow],
    closed: Mapping[str, InboundRow],
    acks: Mapping[str, str],
    due: DueLook | None,
) -> list[Signal]:
    if not ended and not routes and due is None:
        return []
    now = now_ms()
    apologised = False
    with around.db.write_core() as connection:
        if ended:
            connection.execute(_SET_PROJECTED, {"ids": [row.id for row in ended], "now": now})
        replies = _replies(connection, around.session.id, list(closed)) if routes else {}
        # Messages of one chat that are done at the same time were answered together: the reply names one of them.
        shared: defaultdict[Address, set[str]] = defaultdict(set)
        for route in routes:
            shared[_place(route)].update(replies.get(route.inbound_id, ()))
        for route in routes:
            one = route.inbound_id
            status, ack = closed[one].status, acks.get(one)
            end = route_end(status, ack, replies.get(one, ()))
            if end == "completed" and shared[_place(route)]:
                end = shared_end(shared[_place(route)])
            if end is not None:
                why = dead_reason(status, ack, closed[one].tries) if end == "dead" else None
                connection.execute(_END_ROUTE, {"route": route.id, "end": end, "now": now, "why": why})
            if end == "dead":
                apologised |= _apologise(connection, around, route)
        if due is not None:
            # The session's row comes after its routes, as in every other transaction that locks both.
            due.set(connection)
    return [("deliver", around.session.id, around.session.host_id)] if apologised else []


def _place(route: AnyRow) -> Address:
    return Address(route.reply_channel_type or "", route.reply_platform_id or "", None)


def _replies(connection: Connection, session_id: str, inbound_ids: list[str]) -> dict[str | None, list[str]]:
    """The states of the deliveries that answer each of these messages."""
    replies: dict[str | None, list[str]] = {}
    for answered, state in connection.execute(_REPLIES, {"of_session": session_id, "answered": inbound_ids}):
        replies.setdefault(answered, []).append(state)
    return replies


def _apologise(connection: Connection, around: Round, route: AnyRow) -> bool:
    """A message that ends without an answer ends with a notice to those who wrote it."""
    _log.warning("route_dead", session=around.session.id, inbound=route.inbound_id)
    if not route.reply_channel_type or not route.reply_platform_id:
        return False
    address = Address(route.reply_channel_type, route.reply_platform_id, route.reply_thread_id)
    enter_host_message(connection, around.session.id, f"unanswered-{route.inbound_id}", address, UNANSWERED)
    return True
