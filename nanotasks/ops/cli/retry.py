"""`nanotasks retry`: everything that waits for another try, and trying it now or giving it up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import ERROR_CLASSES, RUN_ERROR_CLASSES
from nanotasks.errors import ConflictError, UsageError
from nanotasks.ops.cli.arguments import Limit, OfGroup, choice, moment_option, rows_wanted
from nanotasks.ops.cli.central import reading, ring, writing
from nanotasks.ops.cli.output import is_json, say, say_if_cut, show_list, show_one
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.ops.retries import Waiting, Wanted

app = App(help="What waits for another try: messages, agents that do not start, replies, runs of scheduled tasks.")
COLUMNS = ("kind", "id", "state", "place", "class", "try", "next_at=NEXT", "error")
KINDS = ("intake", "append", "wake", "delivery", "run")
CLASSES = tuple(dict.fromkeys((*ERROR_CLASSES, *RUN_ERROR_CLASSES)))
NAME = "Its id or the beginning of it, or the id of a Celery task that tried it."

Kind = Annotated[str | None, choice("--kind", KINDS, "Only of this kind.")]
Class = Annotated[str | None, choice("--class", CLASSES, "Only deliveries and runs that failed so.")]
Since = Annotated[int | None, moment_option("--since", "Only what first failed since then")]
Until = Annotated[int | None, moment_option("--until", "Only what first failed before")]
OfSession = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")]
OneRef = Annotated[str | None, typer.Argument(metavar="[ID]", help=NAME)]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which these are.")]


@dataclass(frozen=True)
class Verb:
    """A change of entries: its action in the audit log, what it does in a transaction, and the word for it."""

    action: Callable[[Waiting], str]
    change: Callable[[Session, Waiting], list[tuple[Any, ...]]]
    done: str


def register(root: typer.Typer) -> None:
    """Add `retries` to the command line."""
    root.add_typer(app, name="retries")


@app.command("list")
def list_retries(
    kind: Kind = None,
    error_class: Class = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = None,
) -> None:
    """List what waits for another try, the next one first: what, why, which attempt, and when."""
    from nanotasks.ops.retries import find

    most = rows_wanted(limit)
    with reading() as central:
        wanted = _wanted(central, kind, error_class, group, session, since, until)
        rows = [listed(entry) for entry in find(central, wanted, most + 1 if most else 0)]
    show_list(rows[: most or None], COLUMNS, empty="Nothing waits for another try.")
    say_if_cut(rows, most)


@app.command("show")
def show_retry(name: Annotated[str, typer.Argument(metavar="ID", help=NAME)], kind: Kind = None) -> None:
    """Show one with every attempt: when, by which worker, in which Celery task, and why it failed.

    A delivery or a run is also shown when it waits no more.
    """
    from nanotasks.ops.retries import history, one

    with reading() as session:
        entry = one(session, name, kind)
        found = {**listed(entry), "attempts": history(session, entry)}
    show_one(found)


@app.command("now")
def retry_now(
    name: OneRef = None,
    kind: Kind = None,
    error_class: Class = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Try one, or all that the options name, now instead of at its time.

    Replies are sent in the order of their lane. One that was given up is tried again too, if it is named by its id.
    """
    from nanotasks.ops.retries import make_due

    given = (kind, error_class, group, session, since, until)
    _change(name, given, everything, dry_run, Verb(lambda _entry: "retry.now", make_due, "tried now"))


@app.command("cancel")
def cancel_retries(
    name: OneRef = None,
    kind: Kind = None,
    error_class: Class = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Give one, or all that the options name, up. Its chat or its agent is told, as at any other end.

    It stays recorded, and `dead retry` or `runs retry` takes it up again. A reply that was given up already is taken
    off the list of the dead, if it is named by its id.
    """
    from nanotasks.ops.retries import action_of_giving_up, give_up

    given = (kind, error_class, group, session, since, until)
    _change(name, given, everything, dry_run, Verb(action_of_giving_up, give_up, "given up"))


def listed(entry: Waiting) -> dict[str, Any]:
    """An entry as it is listed; `try` is its next attempt, of how many where their number is bounded."""
    row = entry.row
    if entry.attempt is None:
        row["try"] = None
    else:
        row["try"] = f"{entry.attempt} of {entry.of}" if entry.of else str(entry.attempt)
    return row


def _wanted(
    central: Session,
    kind: str | None,
    error_class: str | None,
    group: str | None,
    session: str | None,
    since: int | None,
    until: int | None,
) -> Wanted:
    from nanotasks.ops import references
    from nanotasks.ops.retries import Wanted

    return Wanted(
        (kind,) if kind else KINDS,
        error_class,
        since,
        until,
        references.group(central, group).id if group else None,
        references.agent_session(central, session).id if session else None,
    )


def _change(name: str | None, given: tuple[Any, ...], everything: bool, dry_run: bool, verb: Verb) -> None:
    kind, *others = given
    narrowed = any(value is not None for value in (others if name is not None else given))
    if (name is not None) + narrowed + everything != 1:
        raise UsageError(
            "Say which: one ID, or options such as --kind and --class, or --all.",
            fix="Look first: `nanotasks retry list`, or add --dry-run.",
        )
    found = _named(name, kind) if name is not None else _all(given)
    rows = [listed(entry) for entry in (found if dry_run else _changed(found, verb, named=name is not None))]
    if is_json():
        show_one({"dry_run": dry_run, "count": len(rows), "rows": rows})
        return
    show_list(rows, COLUMNS, empty="There is nothing of that kind.")
    if rows:
        are = "would be" if dry_run else "is" if len(rows) == 1 else "are"
        say(f"{len(rows)} {are} {verb.done}.")


def _named(name: str, kind: str | None) -> list[Waiting]:
    from nanotasks.ops.retries import one

    with reading() as session:
        return [one(session, name, kind)]


def _all(given: tuple[Any, ...]) -> list[Waiting]:
    from nanotasks.ops.retries import find, in_order

    with reading() as session:
        return in_order(find(session, _wanted(session, *given)))


def _changed(found: list[Waiting], verb: Verb, *, named: bool) -> list[Waiting]:
    from nanotasks.ops.retries import BATCH

    changed: list[Waiting] = []
    for start in range(0, len(found), BATCH):
        changed += _change_some(found[start : start + BATCH], verb, named=named)
        if len(found) > BATCH:
            say(f"{min(start + BATCH, len(found))} of {len(found)}")
    return changed


def _change_some(entries: list[Waiting], verb: Verb, *, named: bool) -> list[Waiting]:
    rings: list[tuple[Any, ...]] = []
    changed = []
    with writing() as tx:
        for entry in entries:
            try:
                with tx.session.begin_nested():
                    rings += verb.change(tx.session, entry)
                    tx.audit(verb.action(entry), entry.id, {"kind": entry.kind, "from": entry.state})
            except ConflictError as error:
                if named:
                    # For one that was named, the refusal is the answer.
                    raise
                say(str(error))
                continue
            changed.append(entry)
    for kind, *ids in dict.fromkeys(rings):
        ring(kind, *ids)
    return changed
