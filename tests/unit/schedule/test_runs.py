"""Series and their runs: what is planned, taken, missed, withdrawn, tried again."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest
from sqlalchemy import select, update

from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, now_ms, parse_ms
from nanotasks.schedule import due
from nanotasks.schedule import series as verbs
from nanotasks.session.inbound import open_inbound
from nanotasks.testing import ScriptedSender
from tests.unit.schedule.conftest import HOUR, MINUTE, Clock, Tasks


def at_next_hour(clock: Clock) -> int:
    """Move the clock to a whole hour, so that what is planned is predictable."""
    whole = (now_ms() // HOUR + 1) * HOUR
    clock.to(whole)
    return whole


def test_an_occurrence_is_a_row_of_the_file(tasks: Tasks, clock: Clock) -> None:
    """A series plans its first run, and the session's file gets it as a pending task row, once."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    tasks.project()
    (row,) = tasks.rows()
    assert (row.id, row.series_id, row.status, row.recurrence) == (series, series, "pending", "0 * * * *")
    assert row.process_after == iso(hour + HOUR)
    assert row.content == '{"prompt":"Water the flowers","script":null}'
    with tasks.db.read() as session:
        assert session.get_one(AgentSession, "sess-andy").next_due_at == hour + HOUR


def test_a_claim_plans_the_successor(tasks: Tasks, clock: Clock) -> None:
    """Once an occurrence is claimed the next one stands in the file, whatever becomes of the first."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    clock.to(hour + HOUR + 200)
    tasks.claim(series)
    assert tasks.outcomes(series) == ["claimed", "planned"]
    first, second = tasks.runs(series)
    assert 0 <= (first.lateness_ms or 0) - 200 < 5_000
    assert second.scheduled_for == hour + 2 * HOUR
    assert [row.id for row in tasks.open_rows()] == [series, f"{series}@{hour + 2 * HOUR}"]
    tasks.end(series, result="Done.")
    assert tasks.outcomes(series) == ["succeeded", "planned"]
    assert tasks.runs(series)[0].result == "Done."
    assert [row.id for row in tasks.open_rows()] == [f"{series}@{hour + 2 * HOUR}"]


def test_seeing_an_ack_twice_changes_nothing(tasks: Tasks, clock: Clock) -> None:
    """Rounds may be repeated at will."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.run(series)
    before = [(run.id, run.state, run.attempts) for run in tasks.runs(series)]
    tasks.deliver()
    tasks.project()
    assert [(run.id, run.state, run.attempts) for run in tasks.runs(series)] == before


def test_a_single_task_completes(tasks: Tasks) -> None:
    """A series without another occurrence is over with its last run."""
    series = tasks.define("once", iso(now_ms() + 1000))
    tasks.project()
    tasks.run(series)
    assert (tasks.series(series).state, tasks.outcomes(series)) == ("completed", ["succeeded"])
    assert tasks.open_rows() == []


@pytest.mark.parametrize(
    ("policy", "window_s", "outcomes", "runs_next"),
    [
        # Planned for 10:00, 11:00, 12:00, 13:00; nobody was there until 13:30.
        ("skip", None, ["missed", "missed", "missed", "missed", "planned"], 5),
        ("run_once", None, ["missed", "missed", "missed", "planned"], 4),
        ("run_once", 600, ["missed", "missed", "missed", "missed", "planned"], 5),
        ("run_all", None, ["planned"], 1),
        ("run_all", 2 * 3600, ["missed", "missed", "planned"], 3),
    ],
)
def test_missed_occurrences(
    tasks: Tasks, clock: Clock, policy: str, window_s: int | None, outcomes: list[str], runs_next: int
) -> None:
    """After a downtime the policy decides before the session is woken."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", misfire=policy, misfire_window_s=window_s)
    tasks.project()
    clock.to(hour + 4 * HOUR + 30 * MINUTE)
    tasks.project(waking=True)
    assert tasks.outcomes(series) == outcomes
    assert [row.process_after for row in tasks.open_rows()] == [iso(hour + runs_next * HOUR)]


def test_run_all_runs_them_one_after_the_other(tasks: Tasks, clock: Clock) -> None:
    """Each late occurrence is a run of its own, in order, and says how late it was."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", misfire="run_all")
    tasks.project()
    clock.to(hour + 3 * HOUR + 30 * MINUTE)
    tasks.project(waking=True)
    for _ in range(3):
        tasks.run(tasks.open_rows()[0].id)
    assert tasks.outcomes(series) == ["succeeded"] * 3 + ["planned"]
    assert [round((run.lateness_ms or 0) / HOUR, 1) for run in tasks.runs(series)[:3]] == [2.5, 1.5, 0.5]


def test_a_running_agent_that_takes_a_late_row_wins(tasks: Tasks, clock: Clock) -> None:
    """A claim is recorded, however late it is; what was missed behind it is decided on then."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", misfire="skip")
    tasks.project()
    clock.to(hour + 4 * HOUR + 30 * MINUTE)
    tasks.claim(series)
    assert tasks.outcomes(series) == ["claimed", "missed", "missed", "missed", "planned"]


def test_an_occurrence_that_would_overlap_is_withdrawn(tasks: Tasks, clock: Clock) -> None:
    """With `skip`, the alarm has the next occurrence withdrawn just before its time, and the one after planned."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", overlap="skip")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.claim(series)
    settings = tasks.andy.stage.settings
    assert due.next_ms(tasks.db, settings, "here") == hour + 2 * HOUR - 1000
    assert due.signals(tasks.db, settings, "here") == []
    clock.to(hour + 2 * HOUR - 900)
    assert due.signals(tasks.db, settings, "here") == [("project", "sess-andy", "here")]
    assert due.signals(tasks.db, settings, "here") == []
    tasks.project()
    assert tasks.outcomes(series) == ["claimed", "skipped", "planned"]
    assert tasks.open_rows()[-1].process_after == iso(hour + 3 * HOUR)
    tasks.end(series)
    assert tasks.outcomes(series) == ["succeeded", "skipped", "planned"]


def test_an_occurrence_that_may_overlap_waits(tasks: Tasks, clock: Clock) -> None:
    """With `queue`, it stays in the file until the agent takes it."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", overlap="queue")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.claim(series)
    clock.to(hour + 2 * HOUR + 30_000)
    tasks.project()
    assert tasks.outcomes(series) == ["claimed", "planned"]
    tasks.end(series)
    tasks.claim(tasks.open_rows()[0].id)
    assert tasks.outcomes(series) == ["succeeded", "claimed", "planned"]
    assert 30_000 <= (tasks.runs(series)[1].lateness_ms or 0) < 40_000


def test_a_claim_wins_over_a_withdrawal(tasks: Tasks, clock: Clock) -> None:
    """A cancel that comes after the agent took the row is too late for that run, and the run says so."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.andy.ack("processing", series)
    with tasks.db.write() as session:
        found = session.get_one(TaskSeries, series)
        assert verbs.cancel(session, found) == 0
    tasks.project()
    (run,) = tasks.runs(series)
    assert (run.state, run.outcome) == ("claimed", None)
    assert "too late" in (run.note or "")
    assert [row.status for row in tasks.rows()] == ["pending"]
    tasks.end(series)
    assert tasks.outcomes(series) == ["succeeded"]
    assert tasks.series(series).state == "cancelled"


def test_a_failed_run_is_tried_again_by_class(tasks: Tasks, clock: Clock) -> None:
    """A failure that passes by itself is another attempt of the same run, in a row of its own, after a pause."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", attempts_max=2)
    tasks.project()
    clock.to(hour + HOUR)
    tasks.run(series, "failed", error_class="overload", error="the service is overloaded")
    run = tasks.runs(series)[0]
    assert (run.state, run.attempts, run.inbound_id) == ("retrying", 1, f"{series}~2")
    assert 4_000 < run.due_at - now_ms() <= 10_000
    clock.to(run.due_at)
    tasks.run(f"{series}~2", "failed", error_class="overload", error="still overloaded")
    run = tasks.runs(series)[0]
    assert (run.state, run.outcome, run.attempts, run.error_text) == ("ended", "failed", 2, "still overloaded")
    assert tasks.outcomes(series) == ["failed", "planned"]


def test_a_script_that_fails_is_a_failed_run(tasks: Tasks, clock: Clock) -> None:
    """It is not tried again, and the series goes on."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.run(series, "failed", error_class="script", error="it exited with 3")
    assert tasks.outcomes(series) == ["failed", "planned"]
    assert tasks.series(series).failures == 1


def test_a_series_that_keeps_failing_pauses_itself(tasks: Tasks, clock: Clock, sender: ScriptedSender) -> None:
    """After so many failures in a row it is paused, with a notice to its chat; a success in between starts anew."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", failures_max=2)
    tasks.project()
    for number, outcome in enumerate(["failed", "succeeded", "failed", "failed"], 1):
        clock.to(hour + number * HOUR)
        tasks.run(tasks.open_rows()[0].id, outcome, error_class="script" if outcome == "failed" else None, error="no")
    found = tasks.series(series)
    assert (found.state, found.failures) == ("paused", 2)
    assert [row.status for row in tasks.open_rows()] == ["paused"]
    assert "I paused the scheduled task" in sender.arrived[-1].content["text"]


def test_a_failed_single_task_is_told(tasks: Tasks, sender: ScriptedSender) -> None:
    """Nothing follows it, so its chat hears of the failure."""
    series = tasks.define("once", iso(now_ms() + 1000))
    tasks.project()
    tasks.run(series, "failed", error_class="other", error="it broke")
    assert "failed: it broke" in sender.arrived[-1].content["text"]
    assert tasks.series(series).state == "completed"


def test_pause_and_resume(tasks: Tasks, clock: Clock) -> None:
    """A paused occurrence is not taken; what came meanwhile is skipped, and the schedule goes on."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    with tasks.db.write() as session:
        verbs.pause(session, session.get_one(TaskSeries, series), None, "")
    tasks.project()
    assert [row.status for row in tasks.rows()] == ["paused"]
    clock.to(hour + 3 * HOUR + 1)
    tasks.project(waking=True)
    assert tasks.outcomes(series) == ["planned"]
    with tasks.db.write() as session:
        verbs.resume(session, tasks.andy.stage.settings, session.get_one(TaskSeries, series))
    tasks.project()
    assert tasks.outcomes(series) == ["skipped", "planned"]
    assert [row.process_after for row in tasks.open_rows()] == [iso(hour + 4 * HOUR)]


def test_a_pause_ends_at_its_time(tasks: Tasks, clock: Clock) -> None:
    """The sweep resumes a series whose pause is over."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 0 * * *")
    tasks.project()
    with tasks.db.write() as session:
        verbs.pause(session, session.get_one(TaskSeries, series), hour + HOUR, "")
    settings = tasks.andy.stage.settings
    tasks.project()
    assert due.signals(tasks.db, settings) == []
    clock.to(hour + HOUR)
    assert due.signals(tasks.db, settings) == [("project", "sess-andy", "here")]
    tasks.project()
    assert tasks.series(series).state == "active"
    assert [row.status for row in tasks.rows()] == ["pending"]


def test_a_run_by_hand_leaves_the_schedule_alone(tasks: Tasks, clock: Clock) -> None:
    """It is one more run, now."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    with tasks.db.write() as session:
        verbs.run_now(session, session.get_one(TaskSeries, series))
    assert ("wake", "sess-andy", "here") in tasks.project()
    by_hand = tasks.open_rows()[-1]
    tasks.run(by_hand.id)
    assert [(run.origin, run.outcome) for run in tasks.runs(series)] == [("manual", "succeeded"), ("schedule", None)]
    assert tasks.series(series).next_at == hour + HOUR


def test_backfill_makes_what_was_missed(tasks: Tasks, clock: Clock) -> None:
    """Occurrences that no run stands for are made, and those that were missed run after all, in their order."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *", misfire="skip")
    tasks.project()
    clock.to(hour + 3 * HOUR + 30 * MINUTE)
    tasks.project(waking=True)
    assert tasks.outcomes(series) == ["missed", "missed", "missed", "planned"]
    with tasks.db.write() as session:
        found = session.get_one(TaskSeries, series)
        times = verbs.missing_between(session, found, hour, hour + 3 * HOUR, 10)
        assert times == [hour, hour + HOUR, hour + 2 * HOUR]
        assert len(verbs.backfill(session, found, times)) == 3
    tasks.project()
    late = [row.id for row in tasks.open_rows() if (row.process_after or "") <= iso(now_ms())]
    assert len(late) == 3
    for row_id in late:
        tasks.run(row_id)
    assert tasks.outcomes(series) == ["succeeded", "succeeded", "succeeded", "missed", "planned"]
    assert {run.origin for run in tasks.runs(series)[:3]} == {"backfill"}


def test_a_row_the_agent_died_of_is_a_failed_run(tasks: Tasks, clock: Clock) -> None:
    """After too many deaths its row has failed, and the run ends as a crash; the series goes on."""
    hour = at_next_hour(clock)
    series = tasks.define("cron", "0 * * * *")
    tasks.project()
    clock.to(hour + HOUR)
    tasks.claim(series)
    with open_inbound(tasks.andy.folder) as inbound:
        inbound.fail([series])
    with tasks.db.write() as session:
        session.execute(update(TaskRun).where(TaskRun.state == "claimed").values(updated_at=0))
    assert due.signals(tasks.db, tasks.andy.stage.settings) == [("project", "sess-andy", "here")]
    tasks.project()
    assert tasks.outcomes(series) == ["failed", "planned"]
    assert tasks.runs(series)[0].error_class == "crash"


def foreign(tasks: Tasks, row_id: str, at: int, recurrence: str | None, **content: Any) -> None:
    """A task row as NanoClaw 2 leaves it in a session's file."""
    connection = sqlite3.connect(tasks.andy.folder.inbound_db, timeout=10)
    with connection:
        connection.execute(
            "INSERT INTO messages_in (id, seq, kind, timestamp, status, process_after, recurrence, series_id,"
            " platform_id, channel_type, content)"
            " VALUES (?, 1002, 'task', ?, 'pending', ?, ?, 'task-1700-abc', 'family', 'scripted', ?)",
            (row_id, iso(at), iso(at), recurrence, json.dumps(content)),
        )
    connection.close()


@pytest.mark.parametrize("acks", [("processing", "completed"), ("completed",)])
def test_a_task_of_another_host_is_adopted_when_it_runs(tasks: Tasks, clock: Clock, acks: tuple[str, ...]) -> None:
    """A recurring row that nobody planned here goes on as a series, also when its runner reports nothing."""
    hour = at_next_hour(clock)
    foreign(tasks, "msg-77", hour, "0 * * * *", prompt="Say hello", script="echo")
    clock.forward(300)
    for ack in acks:
        tasks.andy.ack(ack, "msg-77")
        tasks.deliver()
    series = tasks.series("task-1700-abc")
    assert (series.prompt, series.script, series.expression, series.state) == (
        "Say hello",
        "echo",
        "0 * * * *",
        "active",
    )
    assert (series.channel_type, series.platform_id) == ("scripted", "family")
    first, second = tasks.runs(series.id)
    assert (first.inbound_id, first.outcome, first.scheduled_for) == ("msg-77", "succeeded", hour)
    assert (second.state, second.scheduled_for) == ("planned", hour + HOUR)
    assert [row.id for row in tasks.open_rows()] == [f"task-1700-abc@{hour + HOUR}"]
    clock.to(hour + HOUR)
    tasks.run(f"task-1700-abc@{hour + HOUR}")
    assert tasks.outcomes(series.id) == ["succeeded", "succeeded", "planned"]


def test_what_cannot_be_adopted_runs_all_the_same(tasks: Tasks, clock: Clock) -> None:
    """A schedule that we cannot read ends with the row; it is logged, and nothing else is disturbed."""
    hour = at_next_hour(clock)
    foreign(tasks, "msg-78", hour, "R R * * *", prompt="Say hello")
    tasks.andy.ack("completed", "msg-78")
    tasks.deliver()
    with tasks.db.read() as session:
        assert session.scalars(select(TaskRun)).all() == []
    assert tasks.open_rows() == []


def utc(text: str) -> int:
    moment = parse_ms(text)
    assert moment is not None
    return moment


@pytest.mark.parametrize(
    ("expression", "begin", "scheduled"),
    [
        # Put forward: 02:30 does not exist, and runs at the first minute that does.
        ("30 2 * * *", "2027-03-27T12:00:00Z", ["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]),
        # Put back: 02:30 comes twice, and runs at the first of the two.
        ("30 2 * * *", "2027-10-30T12:00:00Z", ["2027-10-31T00:30:00Z", "2027-11-01T01:30:00Z"]),
        # Put back: what runs every hour runs in both.
        ("0 * * * *", "2027-10-30T23:30:00Z", [f"2027-10-31T0{hour}:00:00Z" for hour in range(3)]),
    ],
)
def test_what_happens_when_the_clock_is_changed_is_in_the_history(
    tasks: Tasks, clock: Clock, expression: str, begin: str, scheduled: list[str]
) -> None:
    """In Berlin, over the change of the clock: each occurrence once, at the time that is promised."""
    clock.to(utc(begin))
    series = tasks.define("cron", expression)
    tasks.project()
    for text in scheduled:
        (row,) = tasks.open_rows()
        clock.to(utc(text))
        tasks.run(row.id)
    history = tasks.runs(series)
    assert [run.scheduled_for for run in history[:-1]] == [utc(text) for text in scheduled]
    assert [run.outcome or run.state for run in history] == [*("succeeded" for _ in scheduled), "planned"]
