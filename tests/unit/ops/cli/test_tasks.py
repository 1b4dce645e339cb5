"""Scheduled tasks and runs from the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select, update

from nanotasks.central import Database
from nanotasks.central.meta import AuditEntry
from nanotasks.central.series import TaskRun
from nanotasks.clock import iso, now_ms
from tests.unit.ops.cli.command_line import Cli

HOUR = 3_600_000


@pytest.fixture
def song(family: Cli) -> str:
    """A task of andy in the family chat, every morning in Berlin."""
    made = family(
        "task", "create", "Sing a song", "--cron", "0 9 * * *", "--zone", "Europe/Berlin", "--name", "song", "--json"
    )
    assert made.code == 0, made.err
    return str(made.json["id"])


def audits(db: Database) -> list[str]:
    with db.read() as session:
        return list(
            session.scalars(
                select(AuditEntry.action).where(AuditEntry.action.startswith("tasks.")).order_by(AuditEntry.id)
            )
        )


def runs(family: Cli, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = family("run", "list", *options, "--json").json
    return found


def end_run(db: Database, **values: Any) -> None:
    with db.write() as session:
        session.execute(update(TaskRun).where(TaskRun.state == "planned").values(state="ended", **values))


def test_a_task_is_made_and_shown(family: Cli, song: str) -> None:
    """With its schedule in words, its zone and its next times; the first run is planned."""
    row = family("task", "show", "song", "--json").json
    assert (row["id"], row["state"], row["schedule"], row["zone"]) == (
        song,
        "active",
        "every day at 09:00",
        "Europe/Berlin",
    )
    assert len(row["next"]) == 3 and all(text.endswith("09:00") for text in row["next"])
    (run,) = runs(family)
    assert (run["task"], run["state"], run["scheduled_at"]) == (song, "planned", row["next_at"])


def test_the_words_of_a_list(family: Cli, song: str) -> None:
    """Lists name what a person looks for; JSON has all, with exact times."""
    printed = family("task", "list").out
    assert "song" in printed and "every day at 09:00" in printed
    (row,) = family("task", "list", "--json").json
    assert row["next_at"].endswith("Z") and row["retry_classes"] == ["rate_limit", "overload", "network"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cron", "0 9 * * mno"], 'Did you mean "0 9 * * mon"?'),
        (["--cron", "9 * * *"], "five are needed"),
        (["--every", "soon"], "no span of time"),
        (["--at", "tomorrow"], "no date and time"),
        (["--cron", "0 9 * * *", "--zone", "berlin"], "Did you mean Europe/Berlin?"),
        ([], "one of --cron, --every and --at"),
        (["--cron", "0 9 * * *", "--every", "1h"], "one of --cron, --every and --at"),
        (["--cron", "0 9 * * *", "--group", "nobody"], "nobody"),
    ],
)
def test_mistakes_are_explained(family: Cli, options: list[str], words: str) -> None:
    """And nothing is made."""
    refused = family("task", "create", "x", *options)
    assert refused.code in {2, 3}
    assert words in refused.err
    assert family("task", "list", "--json").json == []


def test_a_dry_run_makes_nothing(family: Cli) -> None:
    """It shows when the task would run."""
    row = family("task", "create", "x", "--every", "2h", "--dry-run", "--json").json
    assert row["dry_run"] is True and len(row["next"]) == 3
    assert family("task", "list", "--json").json == []
    assert family("sessions", "list", "--json").json == []


def test_pause_resume_cancel(family: Cli, song: str, central_here: Database) -> None:
    """One by its name, each with an audit row; the same again says that it was so before."""
    assert "1 is paused." in family("task", "pause", "song", "--until", "2d", "--reason", "holidays").err
    row = family("task", "show", "song", "--json").json
    assert (row["state"], row["paused_reason"], row["next"]) == ("paused", "holidays", [])
    assert "1 is resumed." in family("task", "resume", song[:20]).err
    assert "1 is cancelled." in family("task", "cancel", "song").err
    assert "It was cancelled before." in family("task", "cancel", "song").err
    assert runs(family)[0]["outcome"] == "cancelled"
    assert audits(central_here) == ["tasks.create", "tasks.pause", "tasks.resume", "tasks.cancel"]


def test_many_at_once(family: Cli, song: str) -> None:
    """By a filter, and first with --dry-run; one or all has to be said."""
    family("task", "create", "Dance", "--every", "1h")
    dry = family("task", "pause", "--group", "andy", "--dry-run", "--json").json
    assert (dry["dry_run"], dry["count"]) == (True, 2)
    assert {row["state"] for row in family("task", "list", "--json").json} == {"active"}
    assert family("task", "pause", "--all", "--json").json["count"] == 2
    assert family("task", "list", "--state", "active", "--json").json == []
    assert len(family("task", "list", "--state", "active", "--state", "paused", "--json").json) == 2
    assert family("task", "pause").code == 2


def test_update(family: Cli, song: str, central_here: Database) -> None:
    """A new prompt, a new schedule, another time for the next run only."""
    assert family("task", "update", "song", "--prompt", "Hum", "--next", "1h").code == 0
    row = family("task", "show", "song", "--json").json
    assert row["prompt"] == "Hum"
    with central_here.read() as session:
        (run,) = session.scalars(select(TaskRun)).all()
    assert abs(run.due_at - now_ms() - HOUR) < 60_000 and run.scheduled_for != run.due_at
    assert family("task", "update", "song").code == 2
    assert family("task", "update", "song", "--cron", "61 * * * *").code == 2


def test_run_now_and_history(family: Cli, song: str) -> None:
    """A run by hand stands beside the planned one in the history."""
    made = family("task", "run", "song")
    assert made.out.startswith("run-")
    assert {run["origin"] for run in family("task", "history", "song", "--json").json} == {"schedule", "manual"}


def test_backfill(family: Cli, song: str) -> None:
    """It makes what it says it will, once."""
    start, end = iso(now_ms() - 72 * HOUR), iso(now_ms())
    dry = family("task", "backfill", "song", "--from", start, "--to", end, "--dry-run", "--json").json
    assert len(dry) == 3
    made = family("task", "backfill", "song", "--from", start, "--to", end, "--max", "2", "--json").json
    assert [row["scheduled_at"] for row in made] == [row["scheduled_at"] for row in dry[:2]]
    rest = family("task", "backfill", "song", "--from", start, "--to", end, "--json").json
    assert [row["scheduled_at"] for row in rest] == [dry[2]["scheduled_at"]]
    assert family("task", "backfill", "song", "--from", start, "--to", end, "--json").json == []


def test_runs_are_filtered(family: Cli, song: str, central_here: Database) -> None:
    """By outcome, class, task and time; a run is found by the beginning of its id."""
    end_run(central_here, outcome="failed", error_class="script", error_text="it exited with 3", finished_at=now_ms())
    (run,) = runs(family, "--state", "failed", "--class", "script", "--task", "song")
    assert run["error"] == "it exited with 3"
    assert runs(family, "--state", "succeeded") == runs(family, "--class", "crash") == []
    assert runs(family, "--since", "400d", "--until", "0s") == []
    shown = family("run", "show", run["id"][:25], "--json").json
    assert (shown["id"], shown["attempts"]) == (run["id"], [])


def test_a_failed_run_is_done_once_more(family: Cli, song: str, central_here: Database) -> None:
    """One, or all that failed; what succeeded is not."""
    end_run(central_here, outcome="failed", error_class="other", finished_at=now_ms(), attempts=1)
    (run,) = runs(family)
    assert family("run", "retry", "--task", "song", "--dry-run", "--json").json["count"] == 1
    assert family("run", "retry", run["id"]).code == 0
    (again,) = runs(family)
    assert (again["state"], again["inbound_id"]) == ("planned", f"{song}~2")
    end_run(central_here, outcome="succeeded", finished_at=now_ms())
    refused = family("run", "retry", run["id"])
    assert refused.code == 4 and "has succeeded" in refused.err


def test_the_list_needs_no_engine_on_sqlite(family: Cli, song: str) -> None:
    """The quick way and the way through the engine give the same rows."""
    from nanotasks.ops import quick, task_lists

    quickly = task_lists.series()
    slowly = quick._from_database(f"{task_lists._SERIES} ORDER BY s.id", {})
    assert json.dumps(quickly) == json.dumps(slowly)
