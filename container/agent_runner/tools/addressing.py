"""Where a tool's message goes, and the session files it needs for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from agent_runner.destinations import find
from agent_runner.inbound import Inbound, Reader
from agent_runner.outbound import Outbound
from agent_runner.paths import Workspace
from agent_runner.rows import Route
from agent_runner.tools.contract import ToolError


class Address(NamedTuple):
    route: Route
    label: str


def resolve(reader: Reader, name: str | None) -> Address:
    """The address of destination `name`; without a name the current conversation, or the only destination.

    A channel gets the session's thread only when it is the session's own. Raises `ToolError` (rules of NanoClaw 2).
    """
    session = reader.session_routing()
    destinations = reader.destinations()
    if not name:
        if session.complete:
            return Address(session, "(current conversation)")
        if not destinations:
            raise ToolError("No destinations configured.")
        if len(destinations) > 1:
            options = ", ".join(destination.name for destination in destinations)
            raise ToolError(f'You have multiple destinations — specify "to". Options: {options}')
        name = destinations[0].name
    destination = find(destinations, name)
    if destination is None:
        known = ", ".join(known.name for known in destinations) or "(none)"
        raise ToolError(f'Unknown destination "{name}". Known: {known}')
    route = destination.route()
    own = destination.kind != "agent" and route[:2] == session[:2]
    return Address(destination.route(session.thread_id if own else None), name)


@contextmanager
def session_files(workspace: Workspace) -> Iterator[tuple[Inbound, Outbound]]:
    """Both files, for the length of one call: tools run in other threads and processes than the runner's loop."""
    inbound = Inbound(workspace.inbound, workspace.outbound)
    outbound = Outbound(workspace.outbound, inbound)
    try:
        yield inbound, outbound
    finally:
        outbound.close()
