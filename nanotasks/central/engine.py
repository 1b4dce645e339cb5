"""Opening the central database: SQLite in WAL mode by default, PostgreSQL for several hosts.

SQLite runs with `synchronous=FULL` (NORMAL would lose acknowledged commits in a power cut), foreign keys on,
a busy timeout before anything else, and transactions begun by hand: writers with `BEGIN IMMEDIATE`, so that a
read that turns into a write cannot fail half-way. One engine per process, never inherited over a fork.
No transaction spans I/O other than the database's own.

A writer holds SQLite's lock for half a millisecond, but SQLite lets the next one wait for 1, 2, 5, 10, … 100 ms
between two looks: at a hundred messages a second workers spent more than a third of their time so. `_begin_write`
looks several times a millisecond instead.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import URL, Connection, CursorResult, Engine, Executable, Insert, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session

from nanotasks import faults
from nanotasks.central.base import table_of
from nanotasks.clock import now_ms
from nanotasks.errors import ConfigError, DependencyDownError
from nanotasks.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

BUSY_TIMEOUT_MS = 30_000
_LOOK_FIRST_S = 0.0001
_LOOK_LAST_S = 0.002


class Database:
    """One process's door to the central database."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.dialect = self.url.get_backend_name()
        if self.dialect not in {"sqlite", "postgresql"}:
            raise ConfigError(
                f"The central database cannot be {self.dialect}.",
                fix="Use a sqlite:/// or postgresql:// URL in NANOTASKS_DATABASE_URL.",
            )
        self.engine = _sqlite_engine(url) if self.dialect == "sqlite" else _postgres_engine(url)
        self._readers = self.engine.execution_options(nanotasks_read=True)
        self.before_close: list[Callable[[], None]] = []

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A writing transaction; commits at the end of the block, rolls back when it raises."""
        with _explained(self), Session(self.engine, expire_on_commit=False) as session, session.begin():
            faults.point("central.begin")
            yield session
            session.flush()
            faults.point("central.commit")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A reading transaction: one consistent view, nothing written."""
        with _explained(self), Session(self._readers, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def write_core(self) -> Iterator[Connection]:
        """Like `write`, without a unit of work: for statements that run a thousand times a second."""
        with _explained(self), self.engine.begin() as connection:
            faults.point("central.begin")
            yield connection
            faults.point("central.commit")

    @contextmanager
    def read_core(self) -> Iterator[Connection]:
        """Like `read`, without a unit of work."""
        with _explained(self), self._readers.begin() as connection:
            yield connection

    def now_ms(self, session: Session | Connection) -> int:
        """The database's own clock, for leases that several hosts compare."""
        if self.dialect == "sqlite":
            return now_ms()
        return int(session.execute(text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")).scalar_one())

    def close(self) -> None:
        """Close every connection of this process, after what is still to be written."""
        for write in self.before_close:
            write()
        self.engine.dispose()


def rows_changed(db: Session | Connection, statement: Executable, parameters: Mapping[str, Any] | None = None) -> int:
    """Run an UPDATE or DELETE and say how many rows it changed; a claim or a finish that changed none has lost."""
    return cast(CursorResult[Any], db.execute(statement, parameters)).rowcount


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        # Not the text itself: it may hold a password.
        raise ConfigError(
            "NANOTASKS_DATABASE_URL is not the URL of a database.",
            fix="Write it like postgresql://user:password@host/name, or unset it for SQLite in the data directory.",
        ) from error


def insert_for(bind: Session | Connection, model: type[DeclarativeBase]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT with the `on_conflict_…` forms of this database."""
    dialect = bind.dialect if isinstance(bind, Connection) else bind.get_bind().dialect
    # Loading the dialect that is not used costs every process a tenth of a second.
    if dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_postgresql

        return insert_postgresql(table_of(model))
    from sqlalchemy.dialects.sqlite import insert as insert_sqlite

    return insert_sqlite(table_of(model))


def insert_missing(bind: Session | Connection, model: type[DeclarativeBase]) -> Insert:
    """An INSERT that passes over rows whose key is taken; for rows that somebody else may be entering right now.

    The `rowcount` of its result says how many were new.
    """
    return insert_for(bind, model).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


def is_own_fault(error: DBAPIError) -> bool:
    """Whether a statement failed by the values it carries, and not because the database is in trouble.

    PostgreSQL's classes 22 (data exception) and 54 (program limit exceeded, as a key too long for its index).
    """
    return str(getattr(error.orig, "sqlstate", None) or "")[:2] in {"22", "54"}


@contextmanager
def _explained(database: Database) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if is_own_fault(error):
            raise
        detail = str(error.orig).partition("\n")[0] if error.orig else "no detail"
        if "no such table" in detail or "no such column" in detail:
            raise ConfigError(
                "The central database has no schema yet.", why=detail, fix="Run `nanotasks db upgrade`."
            ) from error
        if "readonly database" in detail or "unable to open database file" in detail:
            raise ConfigError(
                f"The central database ({database.url.render_as_string(hide_password=True)}) cannot be opened.",
                why=f"SQLite says: {detail}.",
                fix="Run this as the user who owns the data directory, or point NANOTASKS_DATA_DIR at your own.",
            ) from error
        if "disk is full" in detail:
            raise DependencyDownError(
                f"There is no room for the central database ({database.url.render_as_string(hide_password=True)}).",
                why=f"SQLite says: {detail}.",
                fix="Free some space on its disk; what was accepted so far is safe, and work goes on by itself.",
            ) from error
        raise DependencyDownError(
            f"The central database ({database.url.render_as_string(hide_password=True)}) does not answer.",
            why=detail,
            fix="Check that it runs and that NANOTASKS_DATABASE_URL is right; nothing accepted so far is lost.",
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise DependencyDownError("The connection to the central database broke.", fix="Try again.") from error
        if "not a database" in str(error.orig) or "malformed" in str(error.orig):
            raise ConfigError(
                f"The central database ({database.url.render_as_string(hide_password=True)}) is damaged.",
                why=str(error.orig),
                fix="Restore it from a backup, or point NANOTASKS_DATA_DIR at another directory.",
            ) from error
        raise


def _sqlite_engine(url: str) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA journal_size_limit = 16777216")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("nanotasks_read", False):
            connection.exec_driver_sql("BEGIN")
        else:
            _begin_write(connection)

    return engine


def _begin_write(connection: Connection) -> None:
    """`BEGIN IMMEDIATE` with a wait of our own for whoever writes now."""
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA busy_timeout = 0")
    try:
        until = time.monotonic() + BUSY_TIMEOUT_MS / 1000
        pause = _LOOK_FIRST_S
        while time.monotonic() < until:
            try:
                raw.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            time.sleep(pause)
            pause = min(1.3 * pause, _LOOK_LAST_S)
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises SQLAlchemy's form of the error
    finally:
        raw.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")


def _postgres_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(
        parsed,
        pool_size=5,
        max_overflow=10,
        pool_pre_ping=True,
        connect_args={"options": "-c synchronous_commit=on -c timezone=UTC", "connect_timeout": 10},
    )


_lock = threading.Lock()
_open: dict[str, Any] = {"pid": None, "database": None, "url": None}


def database(settings: Settings) -> Database:
    """This process's `Database` for these settings, opened on first use and again after a fork."""
    with _lock:
        if _open["pid"] != os.getpid() or _open["url"] != settings.central_url:
            if _open["database"] is not None and _open["pid"] != os.getpid():
                # The parent's sockets and file handles must not be closed from the child.
                _open["database"].engine.dispose(close=False)
            _open.update(pid=os.getpid(), url=settings.central_url, database=Database(settings.central_url))
        opened: Database = _open["database"]
        return opened
