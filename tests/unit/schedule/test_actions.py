"""What agents ask of the schedule, from the row they write to the file they read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import User
from nanotasks.clock import iso, now_ms, parse_ms
from nanotasks.schedule.times import local_text
from nanotasks.session.inbound import open_inbound
from tests.unit.schedule.conftest import DAY, HOUR, Clock, Tasks

LATER = "2031-03-06T14:00:00.000Z"


def schedule(tasks: Tasks, task_id: str = "t1", **content: object) -> str:
    """The request as a runner writes it (NanoClaw 2's payload)."""
    payload = {
        "taskId": task_id,
        "prompt": f"P {task_id}",
        "script": None,
        "processAfter": LATER,
        "recurrence": None,
        "platformId": "family",
        "channelType": "scripted",
        "threadId": None,
    }
    return tasks.ask("schedule_task", **payload | content)


def answer(tasks: Tasks, row_id: str) -> tuple[bool, str]:
    with open_inbound(tasks.andy.folder) as inbound:
        row = inbound.row(f"resp-{row_id}")
    assert row is not None and row.kind == "system" and not row.trigger
    content = json.loads(row.content)
    assert (content["type"], content["requestId"]) == ("task_response", row_id)
    return content["ok"], content["text"]


def test_a_single_task(tasks: Tasks) -> None:
    """One row, with the id, the content and the address that NanoClaw 2 would write."""
    schedule(tasks)
    (row,) = tasks.rows()
    assert (row.id, row.series_id, row.status, row.process_after, row.recurrence) == (
        "t1",
        "t1",
        "pending",
        LATER,
        None,
    )
    assert (row.content, row.channel_type, row.platform_id) == ('{"prompt":"P t1","script":null}', "scripted", "family")
    assert tasks.series("t1").created_by == "agent:ag-andy"


def test_the_same_request_twice_is_one_task(tasks: Tasks) -> None:
    """A request may be carried out again after a crash."""
    schedule(tasks)
    schedule(tasks)
    assert len(tasks.rows()) == len(tasks.runs("t1")) == 1


def test_a_recurring_task_answers_with_its_next_times(tasks: Tasks) -> None:
    """The first run where it was asked for, the others by the schedule, in the zone of the series."""
    row_id = schedule(
        tasks, processAfter="2031-03-06T14:00:00Z", recurrence="0 9 * * *", zone="America/New_York", awaitsAnswer=True
    )
    ok, text = answer(tasks, row_id)
    assert ok
    assert text == ("Next runs (America/New_York): Thu 6 Mar 2031 09:00, Fri 7 Mar 2031 09:00, Sat 8 Mar 2031 09:00")


def test_a_mistake_is_answered(tasks: Tasks) -> None:
    """An agent that waits is told what is wrong and what may have been meant; nothing is scheduled, nothing dead."""
    row_id = schedule(tasks, recurrence="0 9 * * mno", awaitsAnswer=True)
    ok, text = answer(tasks, row_id)
    assert not ok and 'Did you mean "0 9 * * mon"?' in text
    assert tasks.rows() == []
    assert [row.state for row in tasks.andy.stage.deliveries()] == ["delivered"]


def test_a_mistake_of_a_runner_that_does_not_wait_is_told(tasks: Tasks) -> None:
    """NanoClaw 2's runner hears of it as of any request that could not be carried out."""
    schedule(tasks, recurrence="9 * * *")
    assert [row.state for row in tasks.andy.stage.deliveries()] == ["dead"]
    with open_inbound(tasks.andy.folder) as inbound:
        told = [one for one in inbound.open_ids() if one.startswith("sys-")]
    assert len(told) == 1


@pytest.mark.parametrize("words", [{"prompt": ""}, {"prompt": 5}, {"processAfter": "soon"}, {"taskId": "a b"}])
def test_what_cannot_be_is_refused(tasks: Tasks, words: dict[str, object]) -> None:
    """The host believes nothing that a runner should have checked."""
    row_id = schedule(tasks, **words, awaitsAnswer=True)  # type: ignore[arg-type]
    assert answer(tasks, row_id)[0] is False
    assert tasks.rows() == []


def test_zones_default_from_the_user_down(tasks: Tasks) -> None:
    """The user's, else the agent group's, else the installation's."""
    with tasks.db.write() as session:
        session.get_one(AgentGroup, "ag-andy").timezone = "Asia/Tokyo"
    schedule(tasks, "t1", recurrence="0 9 * * *")
    assert tasks.series("t1").zone == "Asia/Tokyo"
    with tasks.db.write() as session:
        session.add(User(id="scripted:family", kind="scripted", created_at=now_ms(), timezone="Europe/Paris"))
        session.get_one(AgentSession, "sess-andy").messaging_group_id = "mg-family"
    schedule(tasks, "t2", recurrence="0 9 * * *")
    assert tasks.series("t2").zone == "Europe/Paris"


def test_cancel_pause_resume(tasks: Tasks) -> None:
    """By the id of the series or of any of its rows; each leads to the same state twice."""
    schedule(tasks, recurrence="0 9 * * *")
    for _ in range(2):
        tasks.ask("pause_task", taskId="t1")
    assert [row.status for row in tasks.rows()] == ["paused"]
    assert tasks.series("t1").state == "paused"
    for _ in range(2):
        tasks.ask("resume_task", taskId="t1")
    assert [row.status for row in tasks.rows()] == ["pending"]
    for _ in range(2):
        tasks.ask("cancel_task", taskId="t1")
    assert [row.status for row in tasks.rows()] == ["completed"]
    assert tasks.outcomes("t1") == ["cancelled"]


@pytest.mark.parametrize("action", ["cancel_task", "pause_task", "resume_task"])
def test_unknown_tasks_are_passed_over(tasks: Tasks, action: str) -> None:
    """In silence for a runner that does not wait (NanoClaw 2's rule), with an answer for one that does."""
    tasks.ask(action, taskId="nope")
    assert [row.state for row in tasks.andy.stage.deliveries()] == ["delivered"]
    row_id = tasks.ask(action, taskId="nope", awaitsAnswer=True)
    assert answer(tasks, row_id) == (
        False,
        "There is no live task 'nope'. list_tasks shows those there are.",
    )


def test_a_late_cancel_says_so(tasks: Tasks, clock: Clock) -> None:
    """The run that the agent has taken goes on; nothing follows it."""
    schedule(tasks, recurrence="0 9 * * *", processAfter=iso(now_ms()))
    tasks.claim("t1")
    row_id = tasks.ask("cancel_task", taskId="t1", awaitsAnswer=True)
    assert answer(tasks, row_id) == (True, "It is cancelled, but too late for the run that is at work now.")
    tasks.end("t1")
    assert tasks.outcomes("t1") == ["succeeded", "cancelled"]
    assert tasks.open_rows() == []


def test_update(tasks: Tasks) -> None:
    """New texts and a new time go into the row that stands there; null takes script and recurrence away."""
    schedule(tasks, recurrence="0 9 * * *", script="echo 1")
    tasks.ask("update_task", taskId="t1", prompt="Q", script=None, processAfter="2031-05-01T00:00:00.000Z")
    (row,) = tasks.open_rows()
    assert (row.id, row.content) == ("t1", '{"prompt":"Q","script":null}')
    assert (row.process_after, row.recurrence) == ("2031-05-01T00:00:00.000Z", "0 9 * * *")
    tasks.ask("update_task", taskId="t1", recurrence="15 * * * *")
    assert tasks.open_rows()[0].recurrence == "15 * * * *"
    tasks.ask("update_task", taskId="t1", recurrence=None)
    assert tasks.open_rows()[0].recurrence is None
    assert tasks.open_rows()[0].process_after == "2031-05-01T00:00:00.000Z"
    tasks.run("t1")
    assert tasks.series("t1").state == "completed"


def test_a_moved_occurrence_is_late_by_its_new_time(tasks: Tasks, clock: Clock) -> None:
    """Moving it does not make it another one; the schedule goes on from where it was."""
    hour = (now_ms() // HOUR + 1) * HOUR
    schedule(tasks, recurrence="0 * * * *", processAfter=iso(hour))
    tasks.ask("update_task", taskId="t1", processAfter=iso(hour + HOUR // 2))
    clock.to(hour + HOUR // 2 + 1000)
    tasks.claim("t1")
    first, second = tasks.runs("t1")
    assert (first.scheduled_for, first.due_at, second.scheduled_for) == (hour, hour + HOUR // 2, hour + HOUR)
    assert 1000 <= (first.lateness_ms or 0) < 6000


def test_an_update_of_nothing_is_told(tasks: Tasks) -> None:
    """An agent that changes what there is not has something wrong in mind."""
    tasks.ask("update_task", taskId="nope", prompt="x")
    with open_inbound(tasks.andy.folder) as inbound:
        assert len([one for one in inbound.open_ids() if one.startswith("sys-")]) == 1


def test_every_counts_by_elapsed_time(tasks: Tasks, clock: Clock) -> None:
    """`every 36h` from the first run on."""
    start = now_ms() // 1000 * 1000
    schedule(tasks, recurrence="every 36h", processAfter=iso(start))
    tasks.run("t1")
    assert [run.scheduled_for - start for run in tasks.runs("t1")] == [0, 36 * HOUR]
    assert parse_ms(tasks.open_rows()[0].process_after or "") == start + DAY + 12 * HOUR


def test_a_session_of_its_own(tasks: Tasks) -> None:
    """A task may run apart from its chat's session; its answers still go to that chat."""
    schedule(tasks, ownSession=True)
    made = tasks.series("t1")
    assert made.session_id != "sess-andy"
    assert (made.channel_type, made.platform_id) == ("scripted", "family")
    assert tasks.rows() == []


def test_times_read_well() -> None:
    """By the clock of the zone."""
    at = round(datetime(2026, 3, 2, 8, tzinfo=UTC).timestamp() * 1000)
    assert local_text(at, "Europe/Berlin") == "Mon 2 Mar 2026 09:00"
