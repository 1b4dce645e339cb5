"""A machine plays with the real stores and services, and looks at the promises after every step."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from nanotasks.central import Database
from tests.faults.machine.rules import Machine

QUICK = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.faults
def test_on_sqlite(migrated: Path) -> None:
    """Every promise holds after every step, and everything comes to rest."""

    def fresh() -> tuple[Database, Path, Callable[[], None]]:
        directory = Path(tempfile.mkdtemp(prefix="nt-machine-"))
        shutil.copy(migrated, directory / "central.db")
        database = Database(f"sqlite:///{directory / 'central.db'}")

        def close() -> None:
            database.close()
            shutil.rmtree(directory)

        return database, directory, close

    class OnSqlite(Machine):
        open_database = staticmethod(fresh)

    run_state_machine_as_test(OnSqlite, settings=QUICK)
