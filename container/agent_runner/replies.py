"""From a model's result to rows for outbound.db, and what it is told when nothing could be delivered.

A block goes to its destination's own address. Its thread, and the message it replies to, are those of the newest row
that came from there, so that a reply lands where the conversation went on; a destination that never wrote gets no
thread, and the first message of the batch as the one replied to (NanoClaw 2). But a newer row that waits for an answer
of its own is not the one replied to where the batch has a row of that chat: the host tells by it who was answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent_runner.destinations import find
from agent_runner.ids import new_id
from agent_runner.inbound import Newest, Reader
from agent_runner.output import Output
from agent_runner.rows import NOWHERE, Destination, InboundRow, OutboundRow, Route
from agent_runner.values import storable, to_json


class Replies(NamedTuple):
    """The rows to write, and the names of blocks that have no destination."""

    rows: tuple[OutboundRow, ...]
    unknown: tuple[str, ...]


def address(
    output: Output, destinations: Sequence[Destination], reader: Reader, batch: Sequence[InboundRow]
) -> Replies:
    """One row per block whose destination exists; `batch` are the rows that are answered."""
    rows: list[OutboundRow] = []
    unknown: list[str] = []
    for block in output.blocks:
        destination = find(destinations, block.to)
        if destination is None:
            unknown.append(block.to)
            continue
        newest = reader.newest_from(destination.route())
        route = destination.route(newest.thread_id if newest else None)
        rows.append(chat_row(route, block.text, _replied_to(newest, route, batch)))
    return Replies(tuple(rows), tuple(unknown))


def _replied_to(newest: Newest | None, route: Route, batch: Sequence[InboundRow]) -> str:
    if newest is None:
        return batch[0].id
    here = [row.id for row in batch if row.route.is_chat_of(route)]
    return here[-1] if newest.is_open and here and newest.id not in here else newest.id


def chat_row(route: Route, text: str, in_reply_to: str | None = None) -> OutboundRow:
    return OutboundRow(new_id("msg"), "chat", route, to_json({"text": storable(text)}), in_reply_to)


def notices(rows: Iterable[InboundRow], session_routing: Route, text: str) -> list[OutboundRow]:
    """`text` to every place these rows came from, once each; rows without an address count for the session's own."""
    routes = (row.route if row.route.complete else session_routing for row in rows)
    return [chat_row(route, text) for route in dict.fromkeys(routes) if route.complete and route is not NOWHERE]


def nudge(unknown: Sequence[str], destinations: Sequence[Destination]) -> str:
    """What the model is told, once, when its answer reached nobody."""
    if unknown:
        names = ", ".join(f'"{name}"' for name in dict.fromkeys(unknown))
        reason = f"there is no destination named {names}"
    else:
        reason = 'it was not wrapped in <message to="name">…</message>'
    known = ", ".join(destination.name for destination in destinations) or "(none)"
    return (
        f"<system>Your response was not delivered: {reason}. Your destinations: {known}. "
        'Send it again, with each message wrapped in <message to="name">…</message>. '
        "If nothing should be sent, answer with <internal>nothing to send</internal>.</system>"
    )
