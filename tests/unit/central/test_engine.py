"""Opening the central database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from nanotasks.central import Database, database
from nanotasks.central.engine import is_own_fault
from nanotasks.errors import ConfigError, DependencyDownError
from nanotasks.settings import load
from nanotasks.testing import PostgresServer


def test_sqlite_is_durable(sqlite_central: Database) -> None:
    """WAL with synchronous=FULL and foreign keys: an acknowledged commit survives a power cut."""
    with sqlite_central.read() as session:
        pragmas = {
            name: session.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("synchronous", "journal_mode", "foreign_keys")
        }
    assert pragmas == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1}


def test_a_failed_write_leaves_nothing(central: Database) -> None:
    """What a raising block wrote is rolled back."""
    with pytest.raises(RuntimeError), central.write() as session:
        session.execute(text("INSERT INTO ticks (name, claimed_at) VALUES ('t', 1)"))
        raise RuntimeError
    with central.read() as session:
        assert session.execute(text("SELECT count(*) FROM ticks")).scalar() == 0


def test_the_clock_of_the_database_is_in_milliseconds(central: Database) -> None:
    """Leases compare instants of this clock, on both databases."""
    with central.write() as session:
        assert 1_700_000_000_000 < central.now_ms(session) < 10_000_000_000_000


def test_an_unreachable_server_is_a_dependency_that_is_down() -> None:
    """The error names the server without its password and says what to do."""
    broken = Database("postgresql://me:hidden@127.0.0.1:1/none")
    with pytest.raises(DependencyDownError) as caught, broken.read() as session:
        session.execute(text("SELECT 1"))
    assert "hidden" not in str(caught.value) and "127.0.0.1:1" in str(caught.value)


def test_another_database_is_refused() -> None:
    """Only SQLite and PostgreSQL are supported, and the error says so."""
    with pytest.raises(ConfigError, match="sqlite"):
        Database("mysql://x/y")


def test_an_engine_is_not_inherited_over_a_fork(tmp_path: Path) -> None:
    """A child opens its own engine."""
    settings = load({"NANOTASKS_DATA_DIR": str(tmp_path)})
    mine = database(settings)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"same" if database(settings) is mine else b"own")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    assert os.read(reader, 10) == b"own"
    os.close(reader)
    assert database(settings) is mine
    mine.close()


TOO_LONG_A_KEY = (
    "INSERT INTO ticks (name, claimed_at) SELECT string_agg(md5(n::text), ''), 1 FROM generate_series(1, 500) n"
)


@pytest.mark.postgres
@pytest.mark.parametrize("statement", ["SELECT 1 / 0", TOO_LONG_A_KEY])
def test_a_value_that_does_not_fit_is_no_outage(
    postgres: PostgresServer, migrated_postgres: str, statement: str
) -> None:
    """What one row's values cause is told as such: only that row is to blame, and trying later does not help."""
    database = Database(postgres.create_database(migrated_postgres))
    with pytest.raises(DBAPIError) as caught, database.write() as session:
        session.execute(text(statement))
    assert is_own_fault(caught.value)
    database.close()


def test_a_file_that_cannot_be_opened_is_a_matter_of_configuration(tmp_path: Path) -> None:
    """Its owner and its path are to be looked at; nobody waits for it to answer."""
    db = Database(f"sqlite:///{tmp_path}")
    with pytest.raises(ConfigError, match="cannot be opened"), db.read_core():
        pass
    db.close()


def test_a_full_disk_says_what_to_do(sqlite_central: Database) -> None:
    """It is no matter of an address; what was accepted is safe."""
    with pytest.raises(DependencyDownError, match="no room") as caught, sqlite_central.write() as session:
        pages = session.execute(text("PRAGMA page_count")).scalar_one()
        session.execute(text(f"PRAGMA max_page_count = {pages}"))
        session.execute(text("INSERT INTO ticks (name, claimed_at) VALUES (hex(zeroblob(1000000)), 1)"))
    assert "Free some space" in caught.value.fix
