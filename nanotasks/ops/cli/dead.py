"""`nanotasks dead`: what was given up, and trying it again or putting it aside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import ERROR_CLASSES
from nanotasks.errors import ConflictError, UsageError
from nanotasks.ops.cli.arguments import Limit, OfGroup, choice, moment_option, rows_wanted
from nanotasks.ops.cli.central import reading, ring, writing
from nanotasks.ops.cli.output import is_json, say, say_if_cut, show_list, show_one
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.ops.dead import Dead, Wanted

app = App(help="The dead: messages and replies that were given up, and wait for an operator.")
COLUMNS = ("kind", "id", "state", "place", "class", "reason", "since_at=SINCE")
KINDS = ("event", "message", "delivery")

Kind = Annotated[str | None, choice("--kind", KINDS, "Only of this kind.")]
Class = Annotated[str | None, choice("--class", ERROR_CLASSES, "Only deliveries that failed so.")]
Since = Annotated[int | None, moment_option("--since", "Only what ended since then")]
Until = Annotated[int | None, moment_option("--until", "Only what ended before")]
OfSession = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")]
OneRef = Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them: its id or the beginning of it.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which these are.")]


def register(root: typer.Typer) -> None:
    """Add `dead` to the command line."""
    root.add_typer(app, name="dead")


@app.command("list")
def list_dead(
    kind: Kind = None,
    error_class: Class = None,
    since: Since = None,
    until: Until = None,
    group: OfGroup = None,
    session: OfSession = None,
    limit: Limit = None,
) -> None:
    """List what was given up, the newest first: events, messages without an answer, deliveries (also those held)."""
    from nanotasks.ops.dead import find

    most = rows_wanted(limit)
    with reading() as central:
        found = find(
            central, _wanted(central, kind, error_class, since, until, group, session), most + 1 if most else 0
        )
    rows = [entry.row for entry in found]
    show_list(rows[: most or None], COLUMNS, empty="Nothing was given up.")
    say_if_cut(rows, most)


@app.command("show")
def show_dead(name: Annotated[str, typer.Argument(metavar="ID", help="Its id or the beginning of it.")]) -> None:
    """Show one of them. `nanotasks explain` tells its whole story."""
    from nanotasks.ops.dead import one

    with reading() as session:
        found = one(session, name).row
    show_one(found)


@app.command("retry")
def retry_dead(
    name: OneRef = None,
    kind: Kind = None,
    error_class: Class = None,
    since: Since = None,
    until: Until = None,
    group: OfGroup = None,
    session: OfSession = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Try one, or all that the options name, once more.

    Deliveries are sent in the order of their lane, before what is newer there. What had arrived arrives twice then.
    """
    from nanotasks.ops.dead import RETRY, retry

    given = (kind, error_class, since, until, group, session)
    _change(name, given, everything, dry_run, RETRY, retry, "tried again")


@app.command("discard")
def discard_dead(
    name: OneRef = None,
    kind: Kind = None,
    error_class: Class = None,
    since: Since = None,
    until: Until = None,
    group: OfGroup = None,
    session: OfSession = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Take one, or all that the options name, off the list. They stay recorded."""
    from nanotasks.ops.dead import DISCARD, discard

    given = (kind, error_class, since, until, group, session)
    _change(name, given, everything, dry_run, DISCARD, discard, "discarded")


def _wanted(
    central: Session,
    kind: str | None,
    error_class: str | None,
    since: int | None,
    until: int | None,
    group: str | None,
    session: str | None,
) -> Wanted:
    from nanotasks.ops import references
    from nanotasks.ops.dead import Wanted

    return Wanted(
        (kind,) if kind else KINDS,
        error_class,
        since,
        until,
        references.group(central, group).id if group else None,
        references.agent_session(central, session).id if session else None,
    )


def _change(
    name: str | None,
    given: tuple[Any, ...],
    everything: bool,
    dry_run: bool,
    action: str,
    change: Callable[[Session, Dead], list[tuple[Any, ...]]],
    done: str,
) -> None:
    from nanotasks.ops.dead import BATCH, find, one

    narrowed = any(value is not None for value in given)
    if (name is not None) + narrowed + everything != 1:
        raise UsageError(
            "Say which: one ID, or options such as --class and --since, or --all.",
            fix="Look first: `nanotasks dead list`, or add --dry-run.",
        )
    with reading() as session:
        found = [one(session, name)] if name is not None else find(session, _wanted(session, *given))
    # The oldest first, so that what belongs together is tried in its order.
    found.reverse()
    changed: list[Dead] = []
    for start in range(0, len(found), BATCH):
        if dry_run:
            break
        changed += _change_some(found[start : start + BATCH], action, change)
        if len(found) > BATCH:
            say(f"{min(start + BATCH, len(found))} of {len(found)}")
    rows = [entry.row for entry in (found if dry_run else changed)]
    if is_json():
        show_one({"dry_run": dry_run, "count": len(rows), "rows": rows})
        return
    show_list(rows, COLUMNS, empty="There is nothing of that kind.")
    if rows:
        say(f"{len(rows)} would be {done}." if dry_run else f"{len(rows)} {'is' if len(rows) == 1 else 'are'} {done}.")


def _change_some(
    entries: list[Dead], action: str, change: Callable[[Session, Dead], list[tuple[Any, ...]]]
) -> list[Dead]:
    rings: list[tuple[Any, ...]] = []
    changed = []
    with writing() as tx:
        for entry in entries:
            try:
                with tx.session.begin_nested():
                    rings += change(tx.session, entry)
                    tx.audit(action, entry.id, {"kind": entry.kind, "from": entry.state})
            except ConflictError as error:
                say(str(error))
                continue
            changed.append(entry)
    for kind, *ids in dict.fromkeys(rings):
        ring(kind, *ids)
    return changed
