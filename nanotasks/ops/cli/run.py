"""`nanotasks run`: the runs of scheduled tasks, what happened in each, and having one done once more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nanotasks.domain.vocabulary import RUN_ERROR_CLASSES, RUN_OUTCOMES, RUN_STATES
from nanotasks.errors import UsageError
from nanotasks.ops.cli.arguments import Limit, OfGroup, choice, moment_option, rows_wanted
from nanotasks.ops.cli.central import reading, ring, writing
from nanotasks.ops.cli.output import is_json, say, say_if_cut, show_list, show_one
from nanotasks.ops.cli.root import App

app = App(help="Runs. A run is one occurrence of a scheduled task, and what became of it.")
OF_ONE_TASK = ("id", "scheduled_at", "outcome", "origin", "late", "took", "attempts", "class", "error", "note")
COLUMNS = ("id", "task", "scheduled_at", "outcome", "late", "took", "attempts", "class", "error")
STATES = tuple(dict.fromkeys((*(state for state in RUN_STATES if state != "ended"), *RUN_OUTCOMES)))
RETRYABLE = ("failed", "missed", "skipped", "cancelled")

States = Annotated[list[str] | None, choice("--state", STATES, "Only in this state or with this outcome; repeatable.")]
OfTask = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Only of this task.")]
OfSession = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")]
Since = Annotated[int | None, moment_option("--since", "Only scheduled since then")]
Until = Annotated[int | None, moment_option("--until", "Only scheduled before")]
Class = Annotated[str | None, choice("--class", RUN_ERROR_CLASSES, "Only that failed so.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show which these are.")]


def register(root: typer.Typer) -> None:
    """Add `runs` to the command line."""
    root.add_typer(app, name="runs")


@app.command("list")
def list_runs(
    task: OfTask = None,
    state: States = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    error_class: Class = None,
    limit: Limit = None,
) -> None:
    """List runs, the newest first."""
    most = rows_wanted(limit)
    found = _find(task, state, group, session, since, until, error_class, most + 1 if most else 0)
    show_list([listed(row) for row in found[: most or None]], COLUMNS, empty="There are no such runs.")
    say_if_cut(found, most)


@app.command("show")
def show_run(run: Annotated[str, typer.Argument(metavar="RUN", help="A run: its id or the beginning of it.")]) -> None:
    """Show one run: each attempt, its result, and what happens next."""
    from sqlalchemy import select

    from nanotasks.central.series import TaskAttempt
    from nanotasks.ops import references, task_lists

    with reading() as session:
        found = references.run(session, run)
        attempts = session.scalars(
            select(TaskAttempt).where(TaskAttempt.run_id == found.id).order_by(TaskAttempt.number)
        ).all()
        tried = [
            {
                "number": one.number,
                "inbound_id": one.inbound_id,
                "claimed_at": one.claimed_at,
                "finished_at": one.finished_at,
                "outcome": one.outcome,
                "class": one.error_class,
                "error": one.error_text,
            }
            for one in attempts
        ]
    (row,) = task_lists.runs(ids=[found.id])
    show_one({**listed(row), "attempts": tried, "attempts_made": row["attempts"]})


@app.command("retry")
def retry_runs(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="One run: its id or a beginning of it.")] = None,
    task: OfTask = None,
    state: States = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    error_class: Class = None,
    dry_run: DryRun = False,
) -> None:
    """Have one run, or all that the options name, done once more now: failed, missed, skipped or cancelled ones.

    A run that waits for its next attempt is tried at once.
    """
    from nanotasks.central.series import TaskRun
    from nanotasks.ops import references, task_lists
    from nanotasks.schedule import operator, series

    given = (task, state, group, session, since, until, error_class)
    if (run is not None) == any(one is not None for one in given):
        raise UsageError("Say which: one RUN, or options such as --task and --state.", fix="Look first: --dry-run.")
    if run is not None:
        with reading() as central:
            ids = [references.run(central, run).id]
    else:
        wanted = state or ["failed"]
        ids = [row["id"] for row in _find(task, wanted, group, session, since, until, error_class, 0)]
    done: list[str] = []
    for one in reversed(ids) if not dry_run else ():
        with writing() as tx:
            found = tx.session.get_one(TaskRun, one)
            before = found.outcome or found.state
            operator.retry(tx.session, found)
            tx.audit("runs.retry", one, {"from": before})
            done.append(one)
            signal = ("project", found.session_id, series.host_of(tx.session, operator.series_of(tx.session, found)))
        ring(*signal)
    rows = [listed(row) for row in task_lists.runs(ids=ids if dry_run else done)] if (ids if dry_run else done) else []
    if is_json():
        show_one({"dry_run": dry_run, "count": len(rows), "rows": rows})
        return
    show_list(rows, COLUMNS, empty="There are no such runs.")
    if rows:
        say(f"{len(rows)} would be done once more." if dry_run else f"{len(rows)} done once more.")


def listed(row: dict[str, Any]) -> dict[str, Any]:
    """A run as it is listed: its outcome, or its state while it has none; how late it was and how long it took."""
    shown = dict(row)
    shown["outcome"] = row["outcome"] or row["state"]
    shown["late"] = _span(row["lateness_ms"])
    shown["took_ms"] = (
        row["finished_at"] - row["claimed_at"] if row["finished_at"] and row["claimed_at"] is not None else None
    )
    shown["took"] = _span(shown["took_ms"])
    return shown


def _span(ms: int | None) -> str | None:
    if ms is None:
        return None
    if ms < 1000:
        return f"{ms} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min" if ms < 7_200_000 else f"{ms // 3_600_000} h"


def _find(
    task: str | None,
    state: list[str] | None,
    group: str | None,
    session: str | None,
    since: int | None,
    until: int | None,
    error_class: str | None,
    limit: int,
) -> list[dict[str, Any]]:
    from nanotasks.ops import task_lists

    task_id = group_id = session_id = None
    if task or group or session:
        from nanotasks.ops import references

        with reading() as central:
            task_id = references.task(central, task).id if task else None
            group_id = references.group(central, group).id if group else None
            session_id = references.agent_session(central, session).id if session else None
    return task_lists.runs(
        task=task_id,
        states=state or (),
        group_id=group_id,
        session_id=session_id,
        since=since,
        until=until,
        error_class=error_class,
        limit=limit,
    )
