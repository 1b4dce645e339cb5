"""Who a sender is: a user `<channel>:<handle>`, remembered at the first message and kept up to date.

A display name follows what the platform says last; a message that carries none changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from nanotasks.central.base import table_of
from nanotasks.central.engine import insert_missing
from nanotasks.central.users import User

_user = table_of(User).c
_KNOWN = select(_user.id, _user.display_name).where(_user.id.in_(bindparam("user_ids", expanding=True)))
_RENAME = update(table_of(User)).where(_user.id == bindparam("user_id")).values(display_name=bindparam("name"))


@dataclass(frozen=True)
class Identity:
    """A sender as it is remembered: the channel it was seen on first, and its name there, if any."""

    user_id: str
    kind: str
    display_name: str | None


def remember(connection: Connection, seen: Mapping[str, Identity], now_ms: int) -> None:
    """Add the users that are new and refresh the names of the others; `seen` goes by user id."""
    known = {row.id: row.display_name for row in connection.execute(_KNOWN, {"user_ids": list(seen)})}
    # Sorted, so that two chats' routers never wait for each other's users.
    people = [seen[user_id] for user_id in sorted(seen)]
    new = [
        {"id": person.user_id, "kind": person.kind, "display_name": person.display_name, "created_at": now_ms}
        for person in people
        if person.user_id not in known
    ]
    renamed = [
        {"user_id": person.user_id, "name": person.display_name}
        for person in people
        if person.user_id in known and person.display_name and person.display_name != known[person.user_id]
    ]
    if new:
        connection.execute(insert_missing(connection, User), new)
    if renamed:
        connection.execute(_RENAME, renamed)
