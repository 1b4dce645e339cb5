"""The sweep over running agents: adoption, burial, orphans, and who is stuck."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update

from nanotasks import faults
from nanotasks.central import Database, leases
from nanotasks.central.hosts import Instance
from nanotasks.central.leases import Lease
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver.service import deliver_session
from nanotasks.runtimes.contract import RuntimeDownError
from nanotasks.sweep.containers import sweep
from nanotasks.wake import service
from nanotasks.wake.here import State
from tests.household import FINISH, Household
from tests.scene import HOST, Bells

TWO_MINUTES_MS = 120_000


@pytest.fixture
def house(sqlite_central: Database, tmp_path: Path) -> Iterator[Household]:
    """A host whose agents are scripts."""
    household = Household.set_up(sqlite_central, tmp_path)
    yield household
    household.clear()


def _running(house: Household, script: str = "wait()", name: str = "s1") -> str:
    session_id = house.session(name)
    house.due(session_id)
    house.runtime.script = script
    assert service.wake(house.here, session_id).state is State.STARTED
    house.told(session_id)
    return session_id


def _grow_old(house: Household, session_id: str, by_ms: int = TWO_MINUTES_MS) -> None:
    """Let the agent have started earlier, and have claimed earlier."""
    house.change_instance(house.instances(session_id)[0].id, started_at=now_ms() - by_ms)
    house.says(
        session_id, "UPDATE processing_ack SET status_changed = datetime('now', ?)", f"-{by_ms // 1000 - 1} seconds"
    )


def test_what_dead_processes_held_is_freed(house: Household) -> None:
    """Nobody wants the mutex of a session at rest, so nobody takes it over."""
    dead = dataclasses.replace(house.here.owner, pid=2**22 - 3, start_time=1)
    assert leases.claim(house.here.db, "session:s1", dead, 3600)
    sweep(house.here)
    with house.here.db.read() as session:
        assert leases.held_now(session) == []


def test_at_rest_nothing_is_rung(house: Household) -> None:
    """Healthy agents are left alone."""
    _running(house)
    assert sweep(house.here) == []
    assert len(house.runtime.list()) == 1


ROW = "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES ('msg-1', 1, '', 'chat', '{}')"


def _deliver(house: Household, session_id: str) -> None:
    deliver_session(house.here.db, house.here.settings, session_id, bells=Bells())


def test_a_message_whose_signal_was_lost_is_delivered(house: Household) -> None:
    """The sweep has rows delivered that nobody entered in the ledger, and is quiet once they are."""
    session_id = _running(house)
    house.says(session_id, ROW)
    assert sweep(house.here) == [("deliver", session_id, HOST)]
    _deliver(house, session_id)
    assert sweep(house.here) == []


def test_an_ack_whose_signal_was_lost_is_synced(house: Household) -> None:
    """The sweep has a session settled whose agent finished without a word."""
    session_id = _running(house, FINISH)
    assert sweep(house.here) == [("deliver", session_id, HOST)]
    _deliver(house, session_id)
    assert house.row(session_id).status == "completed"
    assert sweep(house.here) == []


def test_a_session_that_is_due_by_mistake_is_set_right(house: Household) -> None:
    """Who settled its last turn died before the central database knew; its agent lives and has nothing to do."""
    session_id = _running(house, FINISH)
    with faults.armed("settle.after_inbound:1:raise"), pytest.raises(faults.FaultError):
        deliver_session(house.here.db, house.here.settings, session_id, bells=Bells())
    deliver_session(house.here.db, house.here.settings, session_id, bells=Bells())
    assert house.row(session_id).status == "completed"
    assert house.record(session_id).next_due_at == 0
    sweep(house.here)
    assert house.record(session_id).next_due_at is None


def test_a_last_drain_that_was_lost_is_made(house: Household) -> None:
    """What a dead agent wrote is delivered, although the signal of its end was lost after its row was ended."""
    session_id = _running(house, FINISH)
    house.says(session_id, ROW)
    assert service.park(house.here, session_id, "a test").state is State.STOPPED
    assert sweep(house.here) == [("deliver", session_id, HOST)]
    _deliver(house, session_id)
    assert sweep(house.here) == []


DIES_IN_A_COMMIT = """
ack("m1", "completed")
db = sqlite3.connect(work / "outbound.db", isolation_level=None)
insertion = "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES (?, ?, '', 'chat', ?)"
db.execute(insertion, ("whole", 1, "{}"))
db.execute("PRAGMA cache_size = 2")
db.execute("BEGIN")
for number in range(200):
    db.execute(insertion, (f"half-{number}", 101 + 2 * number, "x" * 5000))
tell("ready")
signal.pause()
"""


def test_a_last_drain_of_an_agent_that_died_in_a_commit_is_made(house: Household) -> None:
    """What it had committed before is heard, although half a commit stands in its file."""
    session_id = _running(house, DIES_IN_A_COMMIT)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    assert ("deliver", session_id, HOST) in service.wake(house.here, session_id).rings
    assert (house.folders[session_id].workspace / "outbound.db-journal").exists()
    assert sweep(house.here) == [("deliver", session_id, HOST)]
    _deliver(house, session_id)
    assert sweep(house.here) == []


def test_a_dead_agent_is_looked_at(house: Household) -> None:
    """An end that nobody saw is found."""
    session_id = _running(house)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    assert sweep(house.here) == [("wake", session_id, HOST)]


def test_a_stranger_of_a_session_is_adopted(house: Household) -> None:
    """An agent that runs and is not recorded gets its row."""
    session_id = _running(house)
    with house.here.db.write() as session:
        session.execute(delete(Instance))
    assert sweep(house.here) == [("wake", session_id, HOST)]
    assert [one.ended_at for one in house.instances(session_id)] == [None]
    assert sweep(house.here) == []


def test_an_orphan_is_stopped(house: Household) -> None:
    """An agent whose session was deleted does not run on."""
    session_id = _running(house)
    with house.here.db.write() as session:
        session.execute(delete(Instance))
        session.execute(delete(AgentSession))
    assert sweep(house.here) == []
    assert house.runtime.find(session_id) is None


def test_a_closed_session_is_looked_at(house: Household) -> None:
    """What should not run any more is not forgotten when its signal was lost."""
    session_id = _running(house)
    house.change(session_id, status="closed")
    assert sweep(house.here) == [("wake", session_id, HOST)]


def test_a_stuck_agent_is_stopped(house: Household) -> None:
    """A claim of which nothing came for a minute ends the agent; its row is tried again later."""
    session_id = _running(house, "ack('m1', 'processing'); wait()")
    assert sweep(house.here) == []
    _grow_old(house, session_id)
    assert ("deliver", session_id, HOST) in sweep(house.here)
    (ended,) = house.instances(session_id)
    assert (ended.end_reason or "").startswith("stopped: stuck: no")
    assert house.row(session_id).tries == 1
    assert house.runtime.find(session_id) is None


def test_a_sign_of_life_keeps_a_slow_agent(house: Household) -> None:
    """A heartbeat after the claim means that it works."""
    session_id = _running(house, "ack('m1', 'processing'); beat(); wait()")
    _grow_old(house, session_id)
    house.folders[session_id].heartbeat.touch()
    assert sweep(house.here) == []
    assert house.runtime.is_alive(session_id)


def test_a_long_silence_ends_an_idle_agent(house: Household) -> None:
    """After half an hour without a sign of life even an idle agent is stopped."""
    session_id = _running(house, "ack('m1', 'completed'); beat(); wait()")
    house.change_instance(house.instances(session_id)[0].id, started_at=now_ms() - 2_000_000)
    old = (now_ms() - 1_900_000) / 1000
    os.utime(house.folders[session_id].heartbeat, (old, old))
    sweep(house.here)
    assert (house.instances(session_id)[0].end_reason or "").startswith("stopped: stuck: no sign of life for 19")


def test_a_tool_that_takes_long_is_not_stuck(house: Household) -> None:
    """A declared Bash timeout widens the patience."""
    session_id = _running(house, "ack('m1', 'processing'); wait()")
    _grow_old(house, session_id)
    house.says(session_id, "INSERT INTO container_state VALUES (1, 'Bash', 600000, datetime('now'), datetime('now'))")
    assert sweep(house.here) == []


def test_after_a_gap_nobody_is_called_stuck(house: Household) -> None:
    """When the machine slept, everybody looks stuck; for one grace period nobody is stopped."""
    session_id = _running(house, "ack('m1', 'processing'); wait()")
    sweep(house.here)
    _grow_old(house, session_id)
    _set_last_pass(house, now_ms() - 600_000)
    assert sweep(house.here) == []
    assert sweep(house.here) == []
    assert house.runtime.is_alive(session_id)
    _set_last_pass(house, now_ms() - 1000)
    assert sweep(house.here) != []


def _set_last_pass(house: Household, last_ms: int) -> None:
    with house.here.db.write() as session:
        session.execute(
            update(Lease).where(Lease.name.like("sweep.%")).values(payload=json.dumps({"last_ms": last_ms}))
        )


@pytest.mark.parametrize("damage", ["nonsense", "missing", "pipe", "folder"])
def test_one_hostile_session_holds_up_no_other(house: Household, damage: str) -> None:
    """A session whose files cannot be read is judged by its heartbeat alone; the others are swept."""
    hostile, stuck = _running(house, name="s1"), _running(house, "ack('m1', 'processing'); wait()", name="s2")
    path = house.folders[hostile].outbound_db
    path.unlink()
    if damage == "nonsense":
        path.write_bytes(b"nonsense" * 1000)
    elif damage == "pipe":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    house.change_instance(house.instances(hostile)[0].id, started_at=now_ms() - TWO_MINUTES_MS)
    _grow_old(house, stuck)
    assert ("deliver", stuck, HOST) in sweep(house.here)
    assert house.runtime.is_alive(hostile)


def test_a_runtime_that_is_away_buries_nobody(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is dead because nobody can be asked."""
    _running(house)

    def nobody() -> Any:
        raise RuntimeDownError("Docker does not answer.")

    monkeypatch.setattr(house.runtime, "list", nobody)
    assert sweep(house.here) == []


def test_an_agent_that_lives_has_proved_its_start(house: Household) -> None:
    """Earlier failures are forgotten once an agent has lived for a while."""
    session_id = _running(house)
    house.change(session_id, wake_failures=3, wake_error="No disk.")
    sweep(house.here)
    assert house.record(session_id).wake_failures == 3
    house.change_instance(house.instances(session_id)[0].id, started_at=now_ms() - 20_000)
    sweep(house.here)
    assert (house.record(session_id).wake_failures, house.record(session_id).wake_error) == (0, None)
