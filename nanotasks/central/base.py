"""The declarative base of the central database: naming, the type of an instant, closed vocabularies as CHECKs.

Instants are integer milliseconds UTC (`Millis`), because they are compared; JSON is kept as text that was
written by `domain.compact_json.dumps`, because the session files hold the same text.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from sqlalchemy import BigInteger, CheckConstraint, Integer, MetaData, String, Table, literal_column
from sqlalchemy.orm import DeclarativeBase, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite counts rows in INTEGER PRIMARY KEY only; PostgreSQL wants the wide type.
BigCounter = BigInteger().with_variant(Integer, "sqlite")

Millis = Annotated[int, mapped_column(BigInteger)]
Flag = Annotated[int, mapped_column(Integer)]
Id = Annotated[str, mapped_column(String, primary_key=True)]
RowNumber = Annotated[int, mapped_column(BigCounter, primary_key=True, autoincrement=True)]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


def one_of(column: str, *words: str) -> CheckConstraint:
    """A CHECK that keeps a column to a closed vocabulary."""
    listed = ", ".join(f"'{word}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


def is_flag(column: str) -> CheckConstraint:
    """A CHECK that keeps an integer column to 0 and 1."""
    return CheckConstraint(f"{column} IN (0, 1)", name=column)


def table_of(model: type[DeclarativeBase]) -> Table:
    """The table of a model, for many rows at once: statements on it pass by the ORM's bookkeeping."""
    return cast(Table, model.__table__)


def in_states(alias: str, *states: str) -> Any:
    """`alias.state IN (…)` with the words written out, so that SQLite sees which partial index fits."""
    state: Any = literal_column(f"{alias}.state")
    words: list[Any] = [literal_column(f"'{word}'") for word in states]
    return state.in_(words) if len(words) > 1 else state == words[0]
