"""A machine plays with the real stores and services, and looks at the promises after every step."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis.errors import Flaky

from nanotasks.testing import PostgresServer
from tests.faults.machine.play import on_postgresql, on_sqlite, play
from tests.faults.machine.removals import REMOVALS, Removal

# Less than a minute for both databases; `python -m tests.faults` plays on at random.
EXAMPLES = 20


@pytest.mark.faults
def test_on_sqlite(migrated: Path) -> None:
    """Every promise holds after every step, and everything comes to rest."""
    play(on_sqlite(migrated), EXAMPLES, shrink=False)


@pytest.mark.faults
@pytest.mark.postgres
def test_on_postgresql(postgres: PostgresServer, migrated_postgres: str) -> None:
    """The same on PostgreSQL."""
    play(on_postgresql(postgres.create_database(migrated_postgres)), EXAMPLES, shrink=False)


@pytest.mark.faults
@pytest.mark.parametrize(
    "removal",
    [
        # Where nothing comes to rest, the machine waits for long before it says so.
        pytest.param(
            one, marks=pytest.mark.long if one.notice.startswith("at rest") else (), id=one.name.replace(" ", "-")
        )
        for one in REMOVALS
    ],
)
def test_without_a_guard_the_machine_stops(removal: Removal, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It notices by itself, and says what is broken."""
    removal.remove(monkeypatch)
    with pytest.raises((AssertionError, Flaky), match=removal.notice):
        play(on_sqlite(migrated, removal.change), 6 * EXAMPLES, shrink=False)
