"""Alembic's entry point. The connection comes from `nanotasks.central.migrate`; there is no alembic.ini."""

from __future__ import annotations

from alembic import context

from nanotasks.central import Base


def _run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
