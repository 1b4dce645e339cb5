"""From a model's result to rows for outbound.db, and what it is told when nothing could be delivered.

A block goes to its destination's own address. Its thread, and the message it replies to, are those of the newest row
that came from there, so that a reply lands where the conversation went on; a destination that never wrote gets no
thread, and the first message of the batch as the one replied to (NanoClaw 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from agent_runner.destinations import find
from agent_runner.ids import new_id
from agent_runner.inbound import Reader
from agent_runner.output import Output
from agent_runner.rows import NOWHERE, Destination, InboundRow, OutboundRow, Route
from agent_runner.values import storable, to_json


class Replies(NamedTuple):
    """The rows to write, and the names of blocks that have no destination."""

    rows: tuple[OutboundRow, ...]
    unknown: tuple[str, ...]


def address(output: Output, destinations: Sequence[Destination], reader: Reader, batch_first: str | None) -> Replies:
    """One row per block whose destination exists."""
    rows: list[OutboundRow] = []
    unknown: list[str] = []
    for block in output.blocks:
        destination = find(destinations, block.to)
        if destination is None:
            unknown.append(block.to)
            continue
        newest = reader.newest_from(destination.route())
        in_reply_to, thread_id = newest or (batch_first, None)
        rows.append(chat_row(destination.route(thread_id), block.text, in_reply_to))
    return Replies(tuple(rows), tuple(unknown))


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
