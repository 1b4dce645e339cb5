"""Fixtures that every kind of test shares: a central database on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanotasks.central import Database
from nanotasks.central.migrate import upgrade
from nanotasks.errors import DependencyDownError
from nanotasks.ops import redis_server
from nanotasks.runtimes import base_image, image
from nanotasks.runtimes.docker_client import inspect_image, new_client
from nanotasks.settings import Settings
from nanotasks.testing import PostgresServer, wait_for

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in the background of a shell; every process that a test starts and interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One private PostgreSQL server for the run; skipped where no server binary is installed."""
    # Not below pytest's own folder: every run of pytest closes that to the user the server runs as.
    directory, owner = tempfile.mkdtemp(prefix="nanotasks-postgres-"), os.getpid()
    server = PostgresServer.start_or_skip(Path(directory))
    yield server
    # A child that a test forked may come by here too, when the test fails in it.
    if os.getpid() == owner:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def central_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty central database, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'central.db'}"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def central(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A central database with the newest schema, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated"), tmp_path / "central.db")
        database = Database(f"sqlite:///{tmp_path / 'central.db'}")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        database = Database(server.create_database(request.getfixturevalue("migrated_postgres")))
    yield database
    database.close()


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    """The name of a PostgreSQL database with the newest schema, to be copied."""
    database = Database(postgres.create_database())
    upgrade(database)
    database.close()
    assert database.url.database is not None
    return database.url.database


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the newest schema, to be copied: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "central.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


@pytest.fixture
def sqlite_central(tmp_path: Path, migrated: Path) -> Iterator[Database]:
    """A central database on SQLite only, for tests whose subject is elsewhere."""
    shutil.copy(migrated, tmp_path / "central.db")
    database = Database(f"sqlite:///{tmp_path / 'central.db'}")
    yield database
    database.close()


@pytest.fixture
def redis_url() -> Iterator[str]:
    """The broker URL of a private, empty Redis that answers."""
    with tempfile.TemporaryDirectory(prefix="nanotasks-redis-") as short:
        path = Path(short) / "redis.sock"
        process = redis_server.start(path, Path(short) / "redis.log")
        wait_for(lambda: answers(path), what="Redis answers")
        yield f"redis+socket://{path}"
        process.kill()
        process.wait()


def answers(path: Path) -> bool:
    """Whether somebody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture(scope="session")
def docker_client() -> Iterator[Any]:
    """A client of the Docker daemon; without one the test is skipped, or fails where Docker is required."""
    try:
        client = new_client(30)
    except DependencyDownError as error:
        if os.environ.get("NANOTASKS_TEST_REQUIRE_DOCKER") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    yield client
    client.close()


@pytest.fixture(scope="session")
def agent_image(docker_client: Any) -> str:
    """The agent image of this code, built without a registry; kept between runs, one build at a time."""
    settings = replace(
        Settings(), data_dir=Path("/tmp/nanotasks-test-image"), image="", image_base=base_image.LOCAL_BASE
    )
    with Path("/tmp/nanotasks-test-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if inspect_image(docker_client, base_image.LOCAL_BASE) is None:
            base_image.make_base_image(docker_client)
        return image.ensure(docker_client, settings, lambda line: None)
