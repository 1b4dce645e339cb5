"""Scheduled tasks under fault: each occurrence runs once, whatever dies at its time; its history says how late."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis

from nanotasks.faults import POINTS
from tests.faults.plan import OF_SCHEDULE
from tests.faults.platform import Platform
from tests.faults.world import QUICK, World, wait

pytestmark = pytest.mark.faults

REST_S = 40.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    changes = QUICK | {"task_misfire_grace_s": "1", "task_guard_lead_s": "0.5", "task_backoff_s": "0.2"}
    with Platform().open() as platform, World(tmp_path_factory.mktemp("world"), platform, **changes).running() as up:
        yield up


def rows(world: World, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(world.here.directory / "data" / "central.db", timeout=10)) as db:
        return db.execute(query, values).fetchall()


def series_of(world: World, text: str) -> str:
    """The task whose prompt this is, once it is there."""
    query = "SELECT id FROM task_series WHERE prompt = ?"
    wait(lambda: bool(rows(world, query, text)), REST_S, f"the task {text}")
    ((series,),) = rows(world, query, text)
    return str(series)


def runs(world: World, series: str) -> list[tuple[str, str | None, int | None, int]]:
    """State, outcome, lateness and time of each run, in order."""
    query = (
        "SELECT state, outcome, lateness_ms, scheduled_for FROM task_runs WHERE series_id = ? ORDER BY scheduled_for"
    )
    return rows(world, query, series)


def open_rows(world: World, series: str) -> int:
    """How many rows of a task the session's file still has open."""
    ((group, session),) = rows(world, "SELECT agent_group_id, session_id FROM task_series WHERE id = ?", series)
    path = world.here.directory / "data" / "sessions" / group / session / "host" / "inbound.db"
    with closing(sqlite3.connect(path, timeout=10)) as db:
        query = "SELECT count(*) FROM messages_in WHERE series_id = ? AND status IN ('pending', 'paused')"
        return int(db.execute(query, (series,)).fetchone()[0])


def shown(world: World, chat: str, text: str) -> int:
    """How often the platform showed a text to a chat."""
    return sum(one.taken and one.text == text for one in world.platform.of_chats({chat}))


def flush(world: World) -> None:
    redis.Redis(unix_socket_path=world.redis_socket).flushall()


def kill(world: World, *parts: str) -> None:
    for part in parts:
        for pid in world.processes(part):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("point", [point for point in POINTS if point.startswith(OF_SCHEDULE)])
@pytest.mark.parametrize("times", [1, 2])
def test_a_death_at_each_step(world: World, point: str, times: int) -> None:
    """A kill -9 there, and again in the recovery, leaves one run that succeeded and one message."""
    (chat,) = world.chats(1)
    text = f"ring {point} {times}"
    world.arm(",".join(f"{point}:{number}:kill9" for number in range(1, times + 1)))
    world.say(chat, f"{chat}-ask", f"remind 2s {text}")
    series = series_of(world, text)
    wait(lambda: [run[1] for run in runs(world, series)] == ["succeeded"], REST_S, "the end of the run")
    wait(lambda: shown(world, chat, f"It is time: {text}") == 1, REST_S, "the message")
    wait(lambda: sum(name == point for name, _ in world.hits()) >= times, REST_S, f"{point}, {times} times")
    world.clear()
    wait(lambda: open_rows(world, series) == 0, REST_S, "a file at rest")
    assert len(runs(world, series)) == 1


def test_every_second_while_workers_die(world: World) -> None:
    """A worker is killed and Redis emptied around each time: no occurrence runs twice, and each has an end."""
    (chat,) = world.chats(1)
    world.say(chat, f"{chat}-ask", "every 1s tick every second")
    series = series_of(world, "tick every second")
    for _ in range(4):
        kill(world, "worker")
        flush(world)
        time.sleep(1.0)
    count = len(runs(world, series))
    wait(lambda: len(runs(world, series)) > count + 2, REST_S, "runs after the faults")
    world.here.run("task", "cancel", series)
    wait(lambda: all(run[0] == "ended" for run in runs(world, series)), REST_S, "the end of the last run")
    found = runs(world, series)
    times = [run[3] for run in found]
    assert times == list(range(times[0], times[-1] + 1, 1000)), "an occurrence has no run"
    assert {run[1] for run in found} <= {"succeeded", "missed", "cancelled"}
    succeeded = sum(run[1] == "succeeded" for run in found)
    wait(lambda: shown(world, chat, "It is time: tick every second") == succeeded, REST_S, "one message for each run")


@pytest.mark.timeout(200)
def test_cron_tasks_from_chat_and_from_the_command_line(world: World) -> None:
    """Both run at the full minute, once and on time, though worker and beat are killed and Redis is emptied then."""
    (chat,) = world.chats(1)
    world.say(chat, f"{chat}-hello", "echo hello")
    wait(lambda: shown(world, chat, "hello") == 1, REST_S, "an answer")
    if time.time() % 60 > 50:
        time.sleep(61 - time.time() % 60)
    world.say(chat, f"{chat}-ask", "cron * * * * * from chat")
    world.here.run(
        "task", "create", "from operator", "--cron", "* * * * *", "--chat", f"webhook:{chat}", "--group", "bea"
    )
    both = [series_of(world, "from chat"), series_of(world, "from operator")]
    minute = min(run[3] for series in both for run in runs(world, series))
    for before_s in (0.4, 0.15, -0.1):
        time.sleep(max(0.0, minute / 1000 - before_s - time.time()))
        kill(world, "worker", "keeper")
        flush(world)

    def first_ended() -> bool:
        return all(runs(world, series)[0][1] == "succeeded" for series in both)

    wait(first_ended, REST_S, "both runs of the minute")
    for series in both:
        found = runs(world, series)
        assert [run[0] for run in found] == ["ended", "planned"]
        assert [run[3] for run in found] == [minute, minute + 60_000]
        assert found[0][2] is not None and found[0][2] < 5_000, "more than five seconds late"
    for text in ("from chat", "from operator"):
        assert shown(world, chat, f"It is time: {text}") == 1
    history = world.here.run("task", "history", both[0]).stdout
    assert "succeeded" in history and "ms" in history
    world.here.run("task", "cancel", both[0])
    world.here.run("task", "cancel", both[1])


def test_what_was_missed_is_in_the_history(world: World) -> None:
    """All is down for some occurrences: by the policy they are missed, and the task goes on."""
    (chat,) = world.chats(1)
    world.say(chat, f"{chat}-hello", "echo hello")
    wait(lambda: shown(world, chat, "hello") == 1, REST_S, "an answer")
    made = ("task", "create", "often", "--every", "1s", "--chat", f"webhook:{chat}", "--group", "bea")
    series = world.here.run(*made, "--misfire", "skip").stdout.strip().splitlines()[0]
    wait(lambda: any(run[1] == "succeeded" for run in runs(world, series)), REST_S, "a first run")
    world.crash()
    time.sleep(4.0)
    world.restart()
    wait(lambda: any(run[1] == "missed" for run in runs(world, series)), REST_S, "missed runs")
    count = len(runs(world, series))
    wait(lambda: len(runs(world, series)) > count + 2, REST_S, "runs after that")
    world.here.run("task", "cancel", series)
    wait(lambda: all(run[0] == "ended" for run in runs(world, series)), REST_S, "the end of the last run")
    times = [run[3] for run in runs(world, series)]
    assert times == list(range(times[0], times[-1] + 1, 1000)), "an occurrence has no run"
