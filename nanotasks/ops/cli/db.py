"""`nanotasks db`: the central database's schema and health."""

from __future__ import annotations

import typer

from nanotasks.errors import NanotasksError
from nanotasks.ops.cli.central import actor, opened
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings

app = App(help="The central database: its schema and its health.")


def register(root: typer.Typer) -> None:
    """Add `db` to the command line."""
    root.add_typer(app, name="db")


@app.command("upgrade")
def upgrade_schema() -> None:
    """Bring the schema to this release's. Safe to run twice, at the same time, and while workers run."""
    from nanotasks.central.meta import record
    from nanotasks.central.migrate import upgrade

    db = opened(settings())
    before = upgrade(db)
    if not before.up_to_date:
        with db.write() as session:
            record(session, actor(), "db.upgrade", before.head, {"from": before.current})
    words = "It was up to date." if before.up_to_date else f"Upgraded from {before.current or 'nothing'}."
    row = {"schema": before.head, "before": before.current, "upgraded": not before.up_to_date}
    show_result(row, "schema", words)


@app.command("status")
def show_schema() -> None:
    """Show which schema the database has, and which this release brings."""
    from nanotasks.central.migrate import state

    db = opened(settings())
    found = state(db)
    show_one(
        {
            "url": db.url.render_as_string(hide_password=True),
            "schema": found.current,
            "release_schema": found.head,
            "known": found.known,
            "up_to_date": found.up_to_date,
        }
    )


@app.command("check")
def check_files() -> None:
    """Check the central database and this host's session files. Exits 1 when one is damaged."""
    from nanotasks.central.migrate import require_usable
    from nanotasks.ops.check import check

    db = opened(settings())
    require_usable(db)
    results = check(db, settings())
    show_list([vars(result) for result in results], ("file", "result"), empty="There is nothing to check.")
    damaged = [result.file for result in results if result.result != "ok"]
    if damaged:
        raise NanotasksError(
            f"{len(damaged)} of {len(results)} databases {'is' if len(damaged) == 1 else 'are'} not whole.",
            fix="Restore from a backup, or close the sessions concerned; see docs/troubleshooting.md.",
        )
