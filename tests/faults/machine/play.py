"""Running the machine: on a fresh copy of a SQLite file each time, or on one PostgreSQL database that is emptied."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from nanotasks.central import Base, Database
from tests.faults.machine.rules import Machine

STEPS = 40
# The schema's own rows, which a migration wrote.
_KEPT = "schema_meta"

Opened = tuple[Database, Path, Callable[[], None]]


def on_sqlite(migrated: Path, change: str = "") -> type[Machine]:
    """The machine on copies of a migrated SQLite file; `change` is a statement that is run on each first."""

    def fresh() -> Opened:
        directory = Path(tempfile.mkdtemp(prefix="nt-machine-"))
        shutil.copy(migrated, directory / "central.db")
        database = Database(f"sqlite:///{directory / 'central.db'}")
        if change:
            with database.write_core() as connection:
                connection.execute(text(change))

        def close() -> None:
            database.close()
            shutil.rmtree(directory)

        return database, directory, close

    return _machine("OnSqlite", fresh)


def on_postgresql(url: str) -> type[Machine]:
    """The machine on a migrated PostgreSQL database, which is emptied each time."""

    def fresh() -> Opened:
        directory = Path(tempfile.mkdtemp(prefix="nt-machine-"))
        database = Database(url)
        tables = ", ".join(name for name in Base.metadata.tables if name != _KEPT)
        with database.write_core() as connection:
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))

        def close() -> None:
            database.close()
            shutil.rmtree(directory)

        return database, directory, close

    return _machine("OnPostgresql", fresh)


def play(machine: type[Machine], examples: int, *, at_random: bool = False, shrink: bool = True) -> None:
    """Run so many examples; raises what the first broken one raises, with its steps."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            deadline=None,
            derandomize=not at_random,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _machine(name: str, fresh: Callable[[], Opened]) -> type[Machine]:
    return type(name, (Machine,), {"open_database": staticmethod(fresh)})
