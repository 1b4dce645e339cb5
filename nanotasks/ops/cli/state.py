"""`nanotasks apply` and `nanotasks export`: the whole arrangement in one file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nanotasks.errors import NotFoundError
from nanotasks.ops.cli.central import after_chats, after_destinations, after_moves, reading, writing
from nanotasks.ops.cli.output import is_json, say, show_json, show_text
from nanotasks.ops.cli.root import Command

if TYPE_CHECKING:
    from nanotasks.ops.apply import Change, Plan


def register(root: typer.Typer) -> None:
    """Add `apply` and `export` to the command line."""
    root.command("apply", cls=Command)(apply_state)
    root.command("export", cls=Command)(export_state)


def apply_state(
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="A YAML or JSON file; - is standard input.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Make the groups, chats, users, roles, members, destinations and wirings of a file so.

    What is missing is created, what differs is changed, everything else is left as it is; nothing is deleted. It is
    all done, or nothing is. Doing it twice changes nothing the second time.
    """
    from nanotasks.ops.apply import apply
    from nanotasks.ops.state_file import parse

    state = parse(_read(file), "Standard input" if file == "-" else file)
    with writing() as tx:
        plan = apply(tx.session, state)
        for change in plan.changes:
            tx.audit(f"{change.noun}.{change.action}", change.key, {"by": "apply", **change.fields})
        if dry_run:
            tx.session.rollback()
    if not dry_run:
        after_destinations(sorted(plan.reprojected))
        after_moves(plan.moves)
        after_chats(change.key for change in plan.changes if (change.noun, change.action) == ("chats", "create"))
    _print(plan, dry_run)


def export_state() -> None:
    """Print the whole arrangement as a file for `nanotasks apply`."""
    from nanotasks.ops.export import export

    with reading() as session:
        state = export(session)
    if is_json():
        show_json(state)
    else:
        from nanotasks.ops.state_yaml import written

        # As it is: the escapes of a table would change what a name is. YAML has its own for control characters.
        typer.echo(written(state), nl=False)


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {file}.") from None
    return data.decode("utf-8-sig", "replace")


def _print(plan: Plan, dry_run: bool) -> None:
    if is_json():
        changes = [vars(change) for change in plan.changes]
        show_json({"dry_run": dry_run, "changes": changes, "unchanged": plan.unchanged})
        return
    for change in plan.changes:
        show_text(_line(change))
    made = sum(change.action == "create" for change in plan.changes)
    verb = "to create" if dry_run else "created"
    other = "to change" if dry_run else "changed"
    say(f"{made} {verb}, {len(plan.changes) - made} {other}, {plan.unchanged} as they should be.")


def _line(change: Change) -> str:
    noun = change.noun.removesuffix("s")
    if change.action == "create":
        return f"+ {noun} {change.key}"
    return f"~ {noun} {change.key}: " + ", ".join(f"{name} {_shown(pair)}" for name, pair in change.fields.items())


def _shown(pair: list[object]) -> str:
    before, after = (part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in pair)
    return f"{before} → {after}"
