"""Reading events: rows that carry the time of a change, as a stream in the order of their times.

A source gives its rows in the order of (time, key), a page at a time and each page in its own transaction, so that any
amount of history is read in little memory and holds up nobody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Row, Select, and_, tuple_

from nanotasks.central import Database
from nanotasks.clock import iso
from nanotasks.watch.kinds import BY_NAME

PAGE = 1000

AnyRow: TypeAlias = Row[*tuple[Any, ...]]


@dataclass(frozen=True)
class Event:
    """Something that happened: when (milliseconds UTC), its kind, its fields, and what tells it from all others."""

    at: int
    name: str
    fields: dict[str, Any]
    key: tuple[Any, ...]

    @property
    def line(self) -> str:
        """The event as one line of JSON."""
        return json.dumps({"at": iso(self.at), "event": self.name, **self.fields}, ensure_ascii=False)


@dataclass(frozen=True)
class Only:
    """Which events are wanted: of these kinds, and of this session and this agent group where they are given."""

    names: Collection[str] = frozenset(BY_NAME)
    session_id: str | None = None
    group_id: str | None = None


@dataclass(frozen=True)
class Columns:
    """What orders and names the rows of one time (never NULL), and whose they are, where they are somebody's."""

    key: tuple[ColumnElement[Any], ...]
    session: ColumnElement[Any] | None = None
    group: ColumnElement[Any] | None = None


@dataclass(frozen=True)
class Source:
    """One query. `name` says which event a row is, or None where it is none."""

    label: str
    names: tuple[str, ...]
    query: Select[Any]
    at: ColumnElement[Any]
    of: Columns
    name: Callable[[AnyRow], str | None]

    def read(self, db: Database, after: int, until: int, only: Only) -> Iterator[Event]:
        """The events after `after` and not after `until`, in order; nothing where it cannot have what is wanted."""
        narrow = self._narrow(only)
        if narrow is None:
            return
        begin = self.at > after
        order = (self.at, *self.of.key)
        while True:
            page = self.query.add_columns(*(column.label(f"order{n}_") for n, column in enumerate(order)))
            page = page.where(begin, self.at <= until, *narrow).order_by(*order).limit(PAGE)
            with db.read_core() as connection:
                rows = connection.execute(page).all()
            for row in rows:
                name = self.name(row)
                if name is not None and name in only.names:
                    yield _event(self.label, name, row, row[-len(order) :])
            if len(rows) < PAGE:
                return
            last = rows[-1][-len(order) :]
            # The first condition says the same of the time alone, which is what an index understands.
            begin = and_(self.at >= last[0], tuple_(*order) > tuple_(*last))

    def _narrow(self, only: Only) -> list[ColumnElement[bool]] | None:
        conditions: list[ColumnElement[bool]] = []
        for wanted, column in ((only.session_id, self.of.session), (only.group_id, self.of.group)):
            if wanted is not None:
                if column is None:
                    return None
                conditions.append(column == wanted)
        return conditions if set(self.names) & set(only.names) else None


def _event(label: str, name: str, row: AnyRow, place: tuple[Any, ...]) -> Event:
    known = {**row._mapping, **_more(name, row)}
    fields = {field: _shown(field, known.get(field)) for field in BY_NAME[name].fields}
    return Event(place[0], name, fields, (label, name, *place))


def _more(name: str, row: AnyRow) -> dict[str, Any]:
    """The fields of a change that was written down as such."""
    detail = row._mapping.get("detail_")
    return {} if detail is None else {**json.loads(detail), BY_NAME[name].fields[0]: row.subject_}


def _shown(field: str, value: Any) -> Any:
    if field == "wakes":
        return bool(value)
    return iso(value) if field.endswith("_at") and isinstance(value, int) else value
