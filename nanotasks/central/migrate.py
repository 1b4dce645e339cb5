"""Schema of the central database: what it is now, and bringing it up to this release.

Upgrades are additive (expand, deploy, contract): release n runs on schema n + 1, so only a schema that this
release does not know *and* that says it needs a newer release is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from nanotasks import __version__
from nanotasks.assets import asset
from nanotasks.central.engine import Database
from nanotasks.central.meta import SchemaMeta
from nanotasks.clock import now_ms
from nanotasks.errors import ConfigError

_ADVISORY_LOCK = 7_160_521


@dataclass(frozen=True)
class SchemaState:
    """`current` is what the database has (None when empty), `head` what this release brings."""

    current: str | None
    head: str
    known: bool

    @property
    def up_to_date(self) -> bool:
        return self.current == self.head


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(asset("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def state(db: Database) -> SchemaState:
    """Compare the database's schema with this release's."""
    with db.read() as session:
        return _state(session.connection())


def _state(connection: Connection) -> SchemaState:
    script = ScriptDirectory.from_config(_config())
    current = MigrationContext.configure(connection).get_current_revision()
    head = script.get_current_head()
    if head is None:
        raise ConfigError("This installation has no migrations.", fix="Install nanotasks again.")
    known = current is None or any(revision.revision == current for revision in script.walk_revisions())
    return SchemaState(current, head, known)


def require_usable(db: Database) -> None:
    """Raise `ConfigError` when the schema is missing, older, or of a newer release than this one."""
    found = state(db)
    if not found.known:
        raise _newer(found)
    if not found.up_to_date:
        raise ConfigError(
            "The central database needs an upgrade.",
            why=f"It has schema {found.current or 'none'}; this release needs {found.head}.",
            fix="Run `nanotasks db upgrade`.",
        )


def upgrade(db: Database) -> SchemaState:
    """Bring the schema to this release's; safe to run from several processes at once. Returns the state before."""
    with db.write() as session:
        connection = session.connection()
        if db.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        before = _state(connection)
        if not before.known:
            raise _newer(before)
        if not before.up_to_date:
            command.upgrade(_config(connection), "head")
            _stamp(connection, before.head)
        return before


def _stamp(connection: Connection, revision: str) -> None:
    now = now_ms()
    table = SchemaMeta.__table__
    changed = connection.execute(
        table.update()  # type: ignore[attr-defined]
        .where(table.c.meta_key == "central")
        .values(schema_version=revision, app_version=__version__, updated_at=now)
    )
    if changed.rowcount == 0:
        connection.execute(
            table.insert(),  # type: ignore[attr-defined]
            {
                "meta_key": "central",
                "role": "central",
                "schema_version": revision,
                "app_version": __version__,
                "created_at": now,
                "updated_at": now,
            },
        )


def _newer(found: SchemaState) -> ConfigError:
    return ConfigError(
        "The central database was written by a newer release of nanotasks.",
        why=f"Its schema {found.current} is unknown to {__version__}, which brings {found.head}.",
        fix="Upgrade nanotasks, or point NANOTASKS_DATA_DIR or NANOTASKS_DATABASE_URL at another installation.",
    )
