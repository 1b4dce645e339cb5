"""`nanotasks task`: scheduled tasks, the agent up or down.

A change is committed in the central database; the session's file follows at once where its host is up, and otherwise
when it is again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import MISFIRE_POLICIES, OVERLAP_POLICIES, RUN_ERROR_CLASSES, SERIES_STATES
from nanotasks.errors import ConflictError, UsageError
from nanotasks.ops.cli.arguments import Limit, OfGroup, choice, future_option, is_span, moment_option, rows_wanted
from nanotasks.ops.cli.central import reading, ring, writing
from nanotasks.ops.cli.output import is_json, say, say_if_cut, show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.series import TaskSeries
    from nanotasks.central.sessions import AgentSession

app = App(help="Scheduled tasks. A task is a prompt that an agent gets once, or again and again.")
COLUMNS = ("id", "what", "group", "schedule", "state", "next_at=NEXT", "last_outcome=LAST", "failures")

States = Annotated[list[str] | None, choice("--state", SERIES_STATES, "Only in this state; may be repeated.")]
OfSession = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")]
Since = Annotated[int | None, moment_option("--since", "Only with a next run since then")]
Until = Annotated[int | None, future_option("--until", "Only with a next run before")]
Class = Annotated[str | None, choice("--class", RUN_ERROR_CLASSES, "Only whose last run failed so.")]
TaskRef = Annotated[str, typer.Argument(metavar="TASK", help="A task: its id or the beginning of it, or its name.")]
OneRef = Annotated[
    str | None, typer.Argument(metavar="[TASK]", help="One task: its id, a beginning of it, or its name.")
]
All = Annotated[bool, typer.Option("--all", help="All of them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]
Cron = Annotated[str | None, typer.Option("--cron", metavar="FIELDS", help="By the clock: '0 9 * * mon-fri', @daily.")]
Every = Annotated[str | None, typer.Option("--every", metavar="SPAN", help="Every so often: 15m, 2h, 1d.")]
At = Annotated[str | None, typer.Option("--at", metavar="WHEN", help="Once: 2031-12-01T09:00, or 10m from now.")]
Zone = Annotated[
    str | None, typer.Option("--zone", metavar="ZONE", help="IANA zone of the times; the user's or the group's else.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="A short name, by which it can be called.")]
Script = Annotated[
    str | None, typer.Option("--script", metavar="BASH", help="Runs first and decides; an empty one takes it away.")
]
MisfirePolicy = Annotated[str | None, choice("--misfire", MISFIRE_POLICIES, "What becomes of missed occurrences.")]
Window = Annotated[
    int | None, typer.Option("--window", min=0, metavar="SECONDS", help="Lateness beyond which one is missed for good.")
]
Overlap = Annotated[str | None, choice("--overlap", OVERLAP_POLICIES, "When the run before is still at work.")]
Attempts = Annotated[
    int | None, typer.Option("--attempts", min=1, metavar="N", help="Attempts of one run, the first one included.")
]
Failures = Annotated[
    int | None, typer.Option("--failures", min=0, metavar="N", help="Failed runs in a row that pause it; 0: never.")
]


def register(root: typer.Typer) -> None:
    """Add `tasks` to the command line."""
    root.add_typer(app, name="tasks")


@app.command("list")
def list_tasks(
    state: States = None,
    group: OfGroup = None,
    session: OfSession = None,
    since: Since = None,
    until: Until = None,
    error_class: Class = None,
    limit: Limit = None,
) -> None:
    """List the tasks, the next one to run first."""
    from nanotasks.ops import task_lists

    most = rows_wanted(limit)
    group_id, session_id = _ids(group, session)
    found = task_lists.series(
        states=state or (),
        group_id=group_id,
        session_id=session_id,
        since=since,
        until=until,
        error_class=error_class,
        limit=most + 1 if most else 0,
        brief=not is_json(),
    )
    rows = [_listed(row) for row in found[: most or None]]
    show_list(rows, COLUMNS, empty="There are no such tasks. `nanotasks task create` makes one.")
    say_if_cut(found, most)


@app.command("show")
def show_task(task: TaskRef) -> None:
    """Show one task: its schedule, its options, its next times and its last runs."""
    with reading() as session:
        row = _whole(session, _found(session, task))
    show_one(row)


@app.command("create")
def create_task(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What the agent is to do when it is time.")],
    group: Annotated[str | None, typer.Option("--group", metavar="GROUP", help="The agent group.")] = None,
    chat: Annotated[str | None, typer.Option("--chat", metavar="CHAT", help="The chat that gets the answers.")] = None,
    session: Annotated[
        str | None, typer.Option("--session", metavar="SESSION", help="The session, instead of group and chat.")
    ] = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    first: Annotated[int | None, future_option("--first", "The first run, where it is not the schedule's own")] = None,
    zone: Zone = None,
    name: Name = None,
    script: Script = None,
    own_session: Annotated[bool, typer.Option("--own-session", help="Run apart from the chat's conversation.")] = False,
    misfire: MisfirePolicy = None,
    window: Window = None,
    overlap: Overlap = None,
    attempts: Attempts = None,
    retry_class: Annotated[
        list[str] | None,
        choice("--retry-class", RUN_ERROR_CLASSES, "A class of failure that is tried again; may be repeated."),
    ] = None,
    failures: Failures = None,
    dry_run: DryRun = False,
) -> None:
    """Schedule a task: with --cron, --every or --at.

    A session of the agent in that chat is made where there is none yet. Without --group and --chat there must be only
    one agent, and one chat that it is wired to.
    """
    from nanotasks.schedule import series
    from nanotasks.schedule.definition import Definition, Options
    from nanotasks.schedule.zones import zone_of
    from nanotasks.settings import settings

    with writing() as tx:
        home = _home(tx.session, group, chat, session)
        where = zone or zone_of(tx.session, settings(), home)
        kind, expression = _schedule(cron, every, at, where)
        defaults = Options()
        options = Options(
            misfire=misfire or defaults.misfire,
            misfire_window_s=window,
            overlap=overlap or defaults.overlap,
            attempts_max=attempts,
            retry_classes=tuple(retry_class) if retry_class else defaults.retry_classes,
            failures_max=failures,
        )
        definition = Definition(prompt, kind, expression, where, first, script, name, options)
        made = series.define(tx.session, settings(), home, definition, created_by=tx.actor, own_session=own_session)
        row = _whole(tx.session, made)
        host = series.host_of(tx.session, made)
        if dry_run:
            tx.session.rollback()
        else:
            tx.audit("tasks.create", made.id, {"kind": kind, "expression": expression, "zone": where})
    if dry_run:
        show_one({"dry_run": True, **row})
        return
    ring("project", row["session"], host)
    show_result(row, "id", f"Scheduled, {row['schedule']} ({where}). {_when(row)}")


@app.command("update")
def update_task(
    task: TaskRef,
    prompt: Annotated[str | None, typer.Option("--prompt", metavar="TEXT", help="The new prompt.")] = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    following: Annotated[int | None, future_option("--next", "Move the next run, and only that")] = None,
    zone: Zone = None,
    name: Name = None,
    script: Script = None,
    misfire: MisfirePolicy = None,
    window: Window = None,
    overlap: Overlap = None,
    attempts: Attempts = None,
    failures: Failures = None,
) -> None:
    """Change a task. What the agent has taken already goes on as it was."""
    from nanotasks.schedule import series
    from nanotasks.settings import settings

    with writing() as tx:
        found = _found(tx.session, task)
        kind = expression = None
        if (cron, every, at) != (None, None, None):
            kind, expression = _schedule(cron, every, at, zone or found.zone)
        wanted = series.Change(
            prompt=prompt,
            script=script,
            name=name,
            kind=kind,
            expression=expression,
            zone=zone,
            next_at=following,
            misfire=misfire,
            misfire_window_s=window,
            overlap=overlap,
            attempts_max=attempts,
            failures_max=failures,
        )
        if wanted == series.Change():
            raise UsageError("There is nothing to change.", fix="Give an option, for example --cron '0 9 * * *'.")
        changed = series.change(tx.session, settings(), found, wanted)
        tx.audit("tasks.update", found.id, {"changed": changed})
        row = _whole(tx.session, found)
        host = series.host_of(tx.session, found)
    ring("project", row["session"], host)
    show_result(row, "id", f"Changed {', '.join(changed) or 'nothing'}. {_when(row)}")


@app.command("run")
def run_task(task: TaskRef) -> None:
    """Run a task now, beside its schedule. Follow it with `nanotasks run show`."""
    from nanotasks.ops import task_lists
    from nanotasks.schedule import series

    with writing() as tx:
        found = _found(tx.session, task)
        run = series.run_now(tx.session, found)
        tx.audit("tasks.run", found.id, {"run": run.id})
        run_id, session_id, host = run.id, run.session_id, series.host_of(tx.session, found)
    ring("project", session_id, host)
    (row,) = task_lists.runs(ids=[run_id])
    show_result(row, "id", f"The task {row['task']} runs now, as {run_id}.")


@app.command("pause")
def pause_tasks(
    task: OneRef = None,
    group: OfGroup = None,
    session: OfSession = None,
    everything: All = False,
    until: Annotated[int | None, future_option("--until", "Go on by itself then")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who look.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Pause one task, or all that the options name. What would run meanwhile is skipped."""
    from nanotasks.schedule import series

    def pause(_session: Session, found: TaskSeries) -> bool:
        return series.pause(_session, found, until, reason)

    _change(task, group, session, everything, dry_run, "tasks.pause", "paused", ("active", "paused"), pause)


@app.command("resume")
def resume_tasks(
    task: OneRef = None,
    group: OfGroup = None,
    session: OfSession = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Let one paused task go on, or all that the options name."""
    from nanotasks.schedule import series
    from nanotasks.settings import settings

    def resume(_session: Session, found: TaskSeries) -> bool:
        return series.resume(_session, settings(), found)

    _change(task, group, session, everything, dry_run, "tasks.resume", "resumed", ("paused",), resume)


@app.command("cancel")
def cancel_tasks(
    task: OneRef = None,
    group: OfGroup = None,
    session: OfSession = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """End one task for good, or all that the options name. A run that the agent has taken is finished."""
    from nanotasks.schedule import series

    def cancel(_session: Session, found: TaskSeries) -> bool:
        if found.state in {"cancelled", "completed"}:
            return False
        if series.cancel(_session, found):
            say(f"It is too late for a run of {found.id} that is at work now.")
        return True

    _change(task, group, session, everything, dry_run, "tasks.cancel", "cancelled", ("active", "paused"), cancel)


@app.command("backfill")
def backfill_task(
    task: TaskRef,
    start: Annotated[int, moment_option("--from", "The first moment of the span")],
    end: Annotated[int, moment_option("--to", "The moment after the span")],
    most: Annotated[int, typer.Option("--max", min=1, max=1000, metavar="N", help="At most so many runs.")] = 100,
    dry_run: DryRun = False,
) -> None:
    """Make the runs of a span of time that never were, or were missed; the agent takes them one after the other."""
    from nanotasks.clock import iso
    from nanotasks.ops import task_lists
    from nanotasks.schedule import series

    if end <= start:
        raise UsageError("The span is empty.", fix="--from comes before --to.")
    with writing() as tx:
        found = _found(tx.session, task)
        times = series.missing_between(tx.session, found, start, end, most)
        made = [] if dry_run else series.backfill(tx.session, found, times)
        if made:
            tx.audit("tasks.backfill", found.id, {"runs": [run.id for run in made], "from": start, "to": end})
        ids, session_id, host = [run.id for run in made], found.session_id, series.host_of(tx.session, found)
    if dry_run:
        planned = [{"scheduled_at": at, "time": iso(at)} for at in times]
        show_list(planned, ("time", "scheduled_at=WHEN"), empty="There is nothing to make.")
        say(f"{len(times)} would be made.")
        return
    if ids:
        ring("project", session_id, host)
    rows = sorted(task_lists.runs(ids=ids), key=lambda row: row["scheduled_at"]) if ids else []
    show_list(rows, ("id", "scheduled_at", "state"), empty="There is nothing to make.")
    if rows:
        say(f"{len(rows)} {'is' if len(rows) == 1 else 'are'} made.")


@app.command("history")
def show_history(
    task: TaskRef,
    since: Annotated[int | None, moment_option("--since", "Only scheduled since then")] = None,
    until: Annotated[int | None, moment_option("--until", "Only scheduled before")] = None,
    limit: Limit = None,
) -> None:
    """List the runs of a task, the newest first: what became of each, and how late it was."""
    from nanotasks.ops import task_lists
    from nanotasks.ops.cli import run

    with reading() as session:
        task_id = _found(session, task).id
    most = rows_wanted(limit)
    found = task_lists.runs(task=task_id, since=since, until=until, limit=most + 1 if most else 0)
    rows = [run.listed(row) for row in found[: most or None]]
    show_list(rows, run.OF_ONE_TASK, empty="It has no runs in that time.")
    say_if_cut(found, most)


@app.command("next")
def show_next(
    task: TaskRef,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, metavar="N", help="How many times.")] = 5,
) -> None:
    """Show when a task runs next, by the clock of its zone."""
    from nanotasks.schedule.times import next_times

    with reading() as session:
        found = _found(session, task)
        rows = [{"time": text, "due_at": at} for at, text in next_times(session, found, count)]
    show_list(rows, ("time", "due_at=WHEN"), empty=f"Nothing is planned: the task is {found.state}.")


def _ids(group: str | None, session: str | None) -> tuple[str | None, str | None]:
    if group is None and session is None:
        return None, None
    from nanotasks.ops import references

    with reading() as central:
        return (
            references.group(central, group).id if group else None,
            references.agent_session(central, session).id if session else None,
        )


def _found(session: Session, text: str) -> TaskSeries:
    from nanotasks.ops import references

    return references.task(session, text)


def _listed(row: dict[str, Any]) -> dict[str, Any]:
    from nanotasks.schedule.times import described

    classes = [one for one in row["retry_classes"].split(",") if one]
    what = row["name"] or " ".join(row["prompt"].split())[:60]
    schedule = described(row["kind"], row["expression"], row["zone"])
    return {**row, "what": what, "schedule": schedule, "retry_classes": classes}


def _whole(session: Session, found: TaskSeries) -> dict[str, Any]:
    from sqlalchemy import func, select

    from nanotasks.central.groups import AgentGroup
    from nanotasks.central.series import TaskRun
    from nanotasks.schedule.times import described, next_times

    session.flush()
    counts = session.execute(
        select(func.coalesce(TaskRun.outcome, TaskRun.state), func.count())
        .where(TaskRun.series_id == found.id)
        .group_by(func.coalesce(TaskRun.outcome, TaskRun.state))
    )
    last = session.scalars(
        select(TaskRun)
        .where(TaskRun.series_id == found.id, TaskRun.state == "ended")
        .order_by(TaskRun.scheduled_for.desc())
        .limit(1)
    ).first()
    group = session.get_one(AgentGroup, found.agent_group_id)
    return {
        "id": found.id,
        "name": found.name,
        "state": found.state,
        "prompt": found.prompt,
        "script": found.script,
        "schedule": described(found.kind, found.expression, found.zone),
        "kind": found.kind,
        "expression": found.expression,
        "anchor_at": found.anchor_at,
        "zone": found.zone,
        "next_at": found.next_at,
        "next": [text for _, text in next_times(session, found, 3)],
        "paused_until_at": found.paused_until,
        "paused_reason": found.paused_reason,
        "group": group.folder,
        "session": found.session_id,
        "channel_type": found.channel_type,
        "platform_id": found.platform_id,
        "thread_id": found.thread_id,
        "misfire": found.misfire,
        "misfire_window_s": found.misfire_window_s,
        "overlap": found.overlap,
        "attempts_max": found.attempts_max,
        "retry_classes": [one for one in found.retry_classes.split(",") if one],
        "failures": found.failures,
        "failures_max": found.failures_max,
        "runs": {str(state): count for state, count in counts},
        "last_run": {
            "id": last.id,
            "outcome": last.outcome,
            "scheduled_at": last.scheduled_for,
            "lateness_ms": last.lateness_ms,
            "error": last.error_text,
        }
        if last
        else None,
        "created_by": found.created_by,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def _when(row: dict[str, Any]) -> str:
    return f"Next: {row['next'][0]}." if row["next"] else "Nothing is planned."


def _schedule(cron: str | None, every: str | None, at: str | None, zone: str) -> tuple[str, str]:
    """The kind and the expression that the options mean."""
    if sum(one is not None for one in (cron, every, at)) != 1:
        raise UsageError("Say when: with one of --cron, --every and --at.", fix="Such as --cron '0 9 * * mon-fri'.")
    if cron is not None:
        return "cron", cron
    if every is not None:
        return "every", every if every.strip().lower().startswith("every") else f"every {every.strip()}"
    assert at is not None
    if is_span(at) and at.strip()[:-1].strip().isdigit():
        from nanotasks.clock import iso, now_ms
        from nanotasks.domain.timestamps import read_moment

        now = now_ms()
        return "once", iso((2 * now - (read_moment(at, now) or now)) // 1000 * 1000)
    return "once", at


def _home(session: Session, group: str | None, chat: str | None, session_text: str | None) -> AgentSession:
    """The session that the options mean, made where there is none yet."""
    from nanotasks.ops import references
    from nanotasks.ops.task_home import home_of

    if session_text is not None:
        if group or chat:
            raise UsageError("--session says it all.", fix="Leave out --group and --chat.")
        return references.agent_session(session, session_text)
    return home_of(session, group, chat)


def _change(
    task: str | None,
    group: str | None,
    session: str | None,
    everything: bool,
    dry_run: bool,
    action: str,
    done: str,
    states: tuple[str, ...],
    change: Callable[[Session, TaskSeries], bool],
) -> None:
    """Change one task or many, each with its audit row."""
    from nanotasks.central.series import TaskSeries
    from nanotasks.ops import task_lists
    from nanotasks.schedule import series

    if (task is not None) + (group is not None or session is not None) + everything != 1:
        raise UsageError(
            "Say which: one TASK, or --group or --session, or --all.",
            fix="Look first: `nanotasks task list`, or add --dry-run.",
        )
    if task is not None:
        with reading() as central:
            ids = [_found(central, task).id]
    else:
        group_id, session_id = _ids(group, session)
        ids = [row["id"] for row in task_lists.series(states=states, group_id=group_id, session_id=session_id)]
    changed: list[str] = []
    rings: list[tuple[Any, ...]] = []
    for one in ids if not dry_run else ():
        try:
            with writing() as tx:
                found = tx.session.get_one(TaskSeries, one)
                if change(tx.session, found):
                    changed.append(one)
                    tx.audit(action, one)
                rings.append(("project", found.session_id, series.host_of(tx.session, found)))
        except ConflictError:
            if task is not None:
                raise
    for kind, *wanted in dict.fromkeys(rings):
        ring(kind, *wanted)
    rows = [_listed(row) for row in task_lists.series(ids=ids if dry_run else changed)] if ids or changed else []
    rows = rows if dry_run or changed else []
    if is_json():
        show_one({"dry_run": dry_run, "count": len(rows), "rows": rows})
        return
    show_list(rows, COLUMNS, empty=f"It was {done} before." if ids else "There is nothing of that kind.")
    if rows:
        say(f"{len(rows)} would be {done}." if dry_run else f"{len(rows)} {'is' if len(rows) == 1 else 'are'} {done}.")
