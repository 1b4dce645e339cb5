"""The central database as a command uses it: one transaction, and an audit row for everything that is changed.

A brand-new installation on SQLite gets its database here, so that groups can be arranged before the first start.
A database that has another schema than this release is never touched: that is `nanotasks db upgrade`'s to do.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanotasks.errors import ConfigError
from nanotasks.ops.cli.output import say
from nanotasks.settings import Settings, settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.agents.moving import Moved
    from nanotasks.central import Database
    from nanotasks.central.sessions import AgentSession


@dataclass(frozen=True)
class Transaction:
    """One writing transaction of a command."""

    session: Session
    actor: str

    def audit(self, action: str, target: str, detail: Mapping[str, Any] | None = None) -> None:
        """Note what is changed, in the same transaction as the change."""
        from nanotasks.central.meta import record

        record(self.session, self.actor, action, target, detail or {})


def actor() -> str:
    """Who runs this command, for the audit log: `os:<user>`."""
    try:
        return f"os:{getpass.getuser()}"
    except (KeyError, OSError):
        return "os:unknown"


@contextmanager
def reading() -> Iterator[Session]:
    """A reading transaction on the central database."""
    with open_central(settings()).read() as session:
        yield session


@contextmanager
def writing() -> Iterator[Transaction]:
    """A writing transaction; commits at the end of the block, and keeps nothing when the block raises."""
    with open_central(settings()).write() as session:
        yield Transaction(session, actor())


def ring(kind: str, *ids: str | int | None) -> None:
    """Signal that there is something to do; when Redis is away, or an id is not known yet, a sweep finds out."""
    from nanotasks import signals

    if None not in ids and signals.redis_ok():
        signals.ring(kind, *ids)


def after_destinations(group_ids: Iterable[str]) -> None:
    """Once their change is committed, show running agents of these groups their destinations."""
    from nanotasks.ops.effects import project_destinations

    config = settings()
    for failure in project_destinations(open_central(config), config, group_ids):
        say(failure)


def after_chats(places: Iterable[str]) -> None:
    """Once these chats are committed (`channel:platform id` each), say which channels nobody serves here."""
    from nanotasks.channels import registry
    from nanotasks.ops.suggest import did_you_mean

    known = registry.names()
    for channel in sorted({place.partition(":")[0] for place in places} - known):
        say(
            f"No channel {channel} is installed here: nothing comes from there, and what is sent there is tried again"
            f" for hours and then given up. {did_you_mean(channel, sorted(known))}"
        )


def after_moves(moves: Iterable[Moved]) -> None:
    """Once these are committed, have the old host stop the agents of the groups and the new one start them."""
    for signal in dict.fromkeys(signal for moved in moves for signal in moved.signals):
        ring(*signal)


def after_deleted_sessions(sessions: Iterable[AgentSession]) -> None:
    """Once their deletion is committed, remove the folders of these sessions."""
    from nanotasks.ops.effects import remove_folders

    for failure in remove_folders(settings(), sessions):
        say(failure)


def open_central(config: Settings) -> Database:
    """The central database with a usable schema. Raises `ConfigError` when it has another."""
    db = opened(config)
    if not _has_newest_schema(db):
        from nanotasks.central.migrate import require_usable, upgrade

        if db.dialect == "sqlite" and _is_empty(db):
            upgrade(db)
            say(f"Created the central database {sqlite_file(config)}.")
        else:
            require_usable(db)
    return db


def opened(config: Settings) -> Database:
    """The central database, whatever its schema is. Raises `ConfigError` when its folder cannot be used."""
    from nanotasks.central.engine import database

    try:
        return database(config)
    except OSError as error:
        raise ConfigError(
            f"The data directory {config.data_dir} cannot be used.",
            why=str(error),
            fix="Set NANOTASKS_DATA_DIR to a directory that you may write in.",
        ) from error


def sqlite_file(config: Settings) -> Path | None:
    """The file of the central database, or None when it is no SQLite file."""
    prefix = "sqlite:///"
    url = config.central_url
    return Path(url.removeprefix(prefix)) if url.startswith(prefix) and url != prefix + ":memory:" else None


def _has_newest_schema(db: Database) -> bool:
    """A quick look that spares most commands the import of Alembic; only a full comparison may say no."""
    from sqlalchemy import inspect, text

    from nanotasks.assets import asset

    newest = max(path.name for path in (asset("migrations") / "versions").glob("[0-9]*.py")).split("_")[0]
    with db.read() as session:
        connection = session.connection()
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [newest]


def _is_empty(db: Database) -> bool:
    from sqlalchemy import inspect

    with db.read() as session:
        return not inspect(session.connection()).get_table_names()
