"""Faults of agents that run as child processes, met by the real wake, sweep and watcher."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete

from nanotasks.central import Database
from nanotasks.central.hosts import Instance
from nanotasks.central.leases import Lease
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.owners import process_start_time
from nanotasks.runtimes import process
from nanotasks.runtimes.contract import Exit
from nanotasks.sweep.containers import sweep
from nanotasks.testing import wait_for
from nanotasks.wake import service
from nanotasks.wake.here import Signal, State
from tests.household import CLAIM, Household
from tests.scene import HOST

DEAF_AND_CLAIMING = (
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); ack('m1', 'processing'); tell('ready'); time.sleep(600)"
)


@pytest.fixture
def house(sqlite_central: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Household]:
    """A host whose agents are scripts."""
    monkeypatch.setattr(process, "KILL_PATIENCE_S", 1.0)
    monkeypatch.setattr(process, "RECORD_PATIENCE_S", 0.2)
    household = Household.set_up(sqlite_central, tmp_path, inbound_max_tries=3)
    yield household
    household.clear()


def _running(house: Household, script: str = CLAIM, name: str = "s1") -> str:
    session_id = house.session(name)
    house.due(session_id)
    house.runtime.script = script
    assert service.wake(house.here, session_id).state is State.STARTED
    house.told(session_id)
    return session_id


def _pid(house: Household, session_id: str) -> int:
    running = house.runtime.find(session_id)
    assert running is not None
    assert running.pid is not None
    return running.pid


def _launcher(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def _grow_old(house: Household, session_id: str) -> None:
    live = house.instances(session_id)[-1]
    house.change_instance(live.id, started_at=now_ms() - 120_000)
    house.says(session_id, "UPDATE processing_ack SET status_changed = datetime('now', '-119 seconds')")


def _at_rest(house: Household, session_id: str) -> None:
    """Nothing runs, nothing is held, nothing is left behind."""
    assert house.runtime.find(session_id) is None
    assert [one for one in house.instances(session_id) if one.ended_at is None] == []
    with house.here.db.read() as session:
        assert all(one.owner is None for one in session.query(Lease))


@contextmanager
def _watched(house: Household) -> Iterator[list[Signal]]:
    rings: list[Signal] = []
    stop = threading.Event()

    def on_exit(ended: Exit) -> None:
        rings.extend(service.on_exit(house.here, ended))

    watcher = threading.Thread(target=house.runtime.watch, args=(on_exit, stop))
    watcher.start()
    try:
        yield rings
    finally:
        stop.set()
        watcher.join(10)
        assert not watcher.is_alive()


@pytest.mark.parametrize("whom", ["runner", "launcher"])
def test_a_killed_agent_is_buried_and_its_row_put_off(house: Household, whom: str) -> None:
    """Whichever of the two is killed, both are gone, the end is seen at once, and the row has lost a try."""
    session_id = _running(house)
    pid = _pid(house, session_id)
    born = process_start_time(pid)
    with _watched(house) as rings:
        os.kill(pid if whom == "runner" else _launcher(pid), signal.SIGKILL)
        wait_for(lambda: rings)
    assert rings == [("wake", session_id, HOST)]
    service.wake(house.here, session_id)
    assert process_start_time(pid) != born
    row = house.row(session_id)
    assert (row.tries, row.status) == (1, "pending")
    _at_rest(house, session_id)


@pytest.mark.parametrize("whom", ["runner", "launcher", "both"])
def test_a_stopped_agent_is_stuck(house: Household, whom: str) -> None:
    """SIGSTOP in mid-turn: after the tolerance the agent is ended, however little of it listens."""
    session_id = _running(house)
    pid = _pid(house, session_id)
    born, launcher = process_start_time(pid), _launcher(pid)
    for one in {"runner": [pid], "launcher": [launcher], "both": [pid, launcher]}[whom]:
        os.kill(one, signal.SIGSTOP)
    _grow_old(house, session_id)
    assert ("deliver", session_id, HOST) in sweep(house.here)
    (ended,) = house.instances(session_id)
    assert (ended.end_reason or "").startswith("stopped: stuck")
    assert house.row(session_id).tries == 1
    assert process_start_time(pid) != born
    _at_rest(house, session_id)


def test_an_agent_that_ignores_the_question_to_stop_is_killed(house: Household) -> None:
    """Stuck and deaf: it is dead after the grace."""
    session_id = _running(house, DEAF_AND_CLAIMING)
    _grow_old(house, session_id)
    began = time.monotonic()
    sweep(house.here)
    assert time.monotonic() - began < 6
    _at_rest(house, session_id)


def test_a_row_whose_agents_always_die_fails_and_is_left_alone(house: Household) -> None:
    """After so many more tries it has failed; nothing is due any more and nothing runs."""
    session_id = _running(house)
    for _ in range(house.stage.settings.inbound_max_tries + 1):
        house.change(session_id, wake_retry_at=None)
        if house.runtime.find(session_id) is None:
            _make_due(house, session_id)
            assert service.wake(house.here, session_id).state is State.STARTED
            house.told(session_id)
        os.kill(_pid(house, session_id), signal.SIGKILL)
        house.dead(session_id)
        service.wake(house.here, session_id)
    assert house.row(session_id).status == "failed"
    assert house.record(session_id).next_due_at is None
    assert service.wake(house.here, session_id).state is State.IDLE
    _at_rest(house, session_id)


def _make_due(house: Household, session_id: str) -> None:
    db = sqlite3.connect(house.folders[session_id].inbound_db, isolation_level=None)
    db.execute("UPDATE messages_in SET process_after = NULL")
    db.close()
    house.change(session_id, next_due_at=0)


def _wake_and_die(house: Household, session_id: str) -> None:
    service.wake(house.here, session_id)
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_agent_outlives_its_starter_and_is_adopted(house: Household) -> None:
    """After kill -9 of the worker, and even without its row, the next look finds the agent and starts no second."""
    session_id = house.session()
    house.due(session_id)
    house.here.db.close()
    starter = multiprocessing.get_context("fork").Process(target=_wake_and_die, args=(house, session_id))
    starter.start()
    starter.join()
    house.told(session_id)
    assert service.wake(house.here, session_id).state is State.RUNNING
    with house.here.db.write() as session:
        session.execute(delete(Instance))
    assert sweep(house.here) == [("wake", session_id, HOST)]
    assert len(house.runtime.list()) == 1
    assert [one.ended_at for one in house.instances(session_id)] == [None]


def test_an_orphan_whose_launcher_is_stopped_is_ended(house: Household) -> None:
    """The session is gone, and the launcher does not answer: the sweep ends both."""
    session_id = _running(house, "wait()")
    os.kill(_launcher(_pid(house, session_id)), signal.SIGSTOP)
    with house.here.db.write() as session:
        session.execute(delete(Instance))
        session.execute(delete(AgentSession))
    sweep(house.here)
    assert house.runtime.find(session_id) is None


def test_a_stuck_agent_that_cannot_be_stopped_holds_up_no_other(
    house: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose end cannot be proved stays recorded; the others of the pass are stopped."""
    first, second = _running(house, name="s1"), _running(house, name="s2")
    for session_id in (first, second):
        _grow_old(house, session_id)
    stop = house.runtime.stop

    def stop_or_fail(session_id: str, grace_s: float, reason: str) -> Exit | None:
        if session_id == first:
            raise OSError("no more file descriptors")
        return stop(session_id, grace_s, reason)

    with monkeypatch.context() as broken:
        broken.setattr(house.runtime, "stop", stop_or_fail)
        sweep(house.here)
    assert house.instances(first)[0].ended_at is None
    assert house.instances(second)[0].ended_at is not None
    sweep(house.here)
    assert house.instances(first)[0].ended_at is not None
