"""Waking and stopping: what runs for a session, and what becomes of it when something dies at any point."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from nanotasks.agents.groups import change_config
from nanotasks.agents.sessions import set_status
from nanotasks.central import Database, leases
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, now_ms
from nanotasks.ops import retries
from nanotasks.owners import Owner, this_owner
from nanotasks.runtimes.contract import Exit, Running, RuntimeDownError, StartFailedError, StartSpec
from nanotasks.session.inbound import open_inbound
from nanotasks.session.rows import Destination, DestinationType
from nanotasks.wake import capacity, service
from nanotasks.wake.here import State
from tests.household import CLAIM, FINISH, Household
from tests.scene import HOST, Speaker

NOT_LONG_AGO_MS = 20_000


@pytest.fixture
def house(sqlite_central: Database, tmp_path: Path) -> Iterator[Household]:
    """A host whose agents are scripts."""
    household = Household.set_up(sqlite_central, tmp_path)
    yield household
    household.clear()


def _running(house: Household, script: str = "wait()") -> str:
    """A session whose agent was woken for the row m1 and runs its script."""
    session_id = house.session()
    house.due(session_id)
    house.runtime.script = script
    assert service.wake(house.here, session_id).state is State.STARTED
    house.told(session_id)
    return session_id


# Starting


def test_a_due_row_starts_the_agent(house: Household) -> None:
    """The agent is started once, recorded, and found again by the next wake."""
    session_id = _running(house)
    (instance,) = house.instances(session_id)
    running = house.runtime.find(session_id)
    assert running is not None
    assert (instance.id, instance.epoch, instance.pid) == (running.instance_id, running.epoch, running.pid)
    assert (instance.runtime, instance.isolated, instance.ended_at) == ("process", 0, None)
    assert house.record(session_id).container_status == "running"
    assert service.wake(house.here, session_id).state is State.RUNNING
    assert len(house.runtime.started) == 1


def test_the_agent_finds_its_surroundings(house: Household) -> None:
    """Destinations, routing, configuration and instructions are there, and no old heartbeat."""
    house.stage.agent("bob")
    house.stage.allow("ag-andy", "family", "channel", "mg-c1")
    house.stage.allow("ag-andy", "bob", "agent", "ag-bob")
    house.stage.allow("ag-andy", "gone", "channel", "mg-gone")
    session_id = house.session()
    house.change(session_id, thread_id="t1")
    folder = house.folders[session_id]
    folder.heartbeat.touch()
    house.due(session_id)
    service.wake(house.here, session_id)
    house.told(session_id)
    with open_inbound(folder) as inbound:
        assert inbound.destinations() == [
            Destination("bob", DestinationType.AGENT, "bob", agent_group_id="ag-bob"),
            Destination("family", DestinationType.CHANNEL, "family", "scripted", "c1"),
        ]
    routing = sqlite3.connect(folder.inbound_db).execute("SELECT * FROM session_routing").fetchall()
    assert routing == [(1, "scripted", "c1", "t1")]
    config = json.loads((folder.host / "container.json").read_text())
    assert (config["provider"], config["assistantName"], config["agentGroupId"]) == ("demo", "andy", "ag-andy")
    workspace = house.stage.settings.data_dir / "groups" / "andy"
    assert "@./.claude-shared.md" in (workspace / "CLAUDE.md").read_text()
    assert (workspace / "CLAUDE.local.md").exists()
    assert not folder.heartbeat.exists()


def test_nothing_due_starts_nothing(house: Household) -> None:
    """A wake is only a look."""
    session_id = house.session()
    assert service.wake(house.here, session_id).state is State.IDLE
    assert house.instances(session_id) == []


def test_a_later_row_waits_for_its_time(house: Household) -> None:
    """What is due later starts nothing now."""
    session_id = house.session()
    house.due(session_id, in_ms=60_000)
    assert service.wake(house.here, session_id).state is State.IDLE
    due_at = house.record(session_id).next_due_at
    assert due_at is not None
    assert 50_000 < due_at - now_ms() <= 60_000


def test_what_the_agent_finished_is_not_due(house: Household) -> None:
    """A row that is acked, although the host has not read that yet, starts no agent."""
    session_id = house.session()
    house.due(session_id)
    house.says(session_id, "INSERT INTO processing_ack VALUES ('m1', 'completed', datetime('now'))")
    assert service.wake(house.here, session_id).state is State.IDLE
    assert house.record(session_id).next_due_at is None


def test_what_ended_while_the_session_was_closed_is_not_done_when_it_opens_again(house: Household) -> None:
    """Those who wrote were told that it was not answered, and asked to send it again."""
    session_id = house.session()
    speaker = Speaker(house.stage, session_id, "ag-andy", house.folders[session_id])
    speaker.hear("m1", reply_to="c1")
    house.due(session_id, "m2")
    for status in ("closed", "active"):
        with house.here.db.write() as session:
            set_status(session, session.get_one(AgentSession, session_id), status)
    assert speaker.route_state("m1") == "dead"
    house.change(session_id, next_due_at=0)
    service.wake(house.here, session_id)
    assert [house.row(session_id, one).status for one in ("m1", "m2")] == ["failed", "pending"]


@pytest.mark.parametrize("values", [{"status": "closed"}, {"id": "sess-unknown"}])
def test_closed_and_unknown_sessions_are_left_alone(house: Household, values: dict[str, str]) -> None:
    """Nothing is started for them."""
    session_id = house.session()
    house.due(session_id)
    if "status" in values:
        house.change(session_id, **values)
    wanted = values.get("id", session_id)
    assert service.wake(house.here, wanted).state in {State.IDLE, State.NOT_HERE}
    assert house.instances(session_id) == []


def test_a_session_of_another_host_is_left_alone(house: Household) -> None:
    """Only the host of its agent group opens a session."""
    session_id = house.session()
    house.due(session_id)
    with house.here.db.write() as session:
        session.add(Host(id="there", heartbeat_at=0, created_at=0))
        session.flush()
        session.get_one(AgentGroup, "ag-andy").host_id = "there"
    assert service.wake(house.here, session_id).state is State.NOT_HERE
    assert house.instances(session_id) == []


def test_the_sessions_provider_comes_first(house: Household) -> None:
    """Session before configuration before installation."""
    with house.here.db.write() as session:
        change_config(session, session.get_one(AgentGroup, "ag-andy"), {"provider": "Mock"})
    session_id = house.session()
    house.due(session_id)
    service.wake(house.here, session_id)
    config = house.folders[session_id].host / "container.json"
    assert json.loads(config.read_text())["provider"] == "mock"
    house.change(session_id, agent_provider="other")
    assert service.stop(house.here, session_id, "test").state is State.STARTED
    assert json.loads(config.read_text())["provider"] == "other"


def _wake(house: Household, session_id: str) -> None:
    service.wake(house.here, session_id)


def test_simultaneous_wakes_start_one_agent(house: Household) -> None:
    """Whichever process gets the mutex starts it; the others leave it alone."""
    session_id = house.session()
    house.due(session_id)
    fork = multiprocessing.get_context("fork")
    house.here.db.close()
    wakers = [fork.Process(target=_wake, args=(house, session_id)) for _ in range(5)]
    for waker in wakers:
        waker.start()
    for waker in wakers:
        waker.join()
        assert waker.exitcode == 0
    house.told(session_id)
    assert len(house.instances(session_id)) == 1
    assert len(house.runtime.list()) == 1


def test_a_row_that_comes_while_others_are_turned_away_is_seen(
    house: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds the mutex looks once more after giving it back."""
    session_id = house.session()
    looked: list[str] = []
    find = house.runtime.find

    def find_and_receive(asked: str) -> Running | None:
        if not looked:
            looked.append(asked)
            house.due(session_id)
            assert service.wake(house.here, session_id).state is State.BUSY
        return find(asked)

    monkeypatch.setattr(house.runtime, "find", find_and_receive)
    assert service.wake(house.here, session_id).state is State.STARTED


# Failing to start


def test_a_failed_start_is_put_off_and_shown(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is on the session, the pause grows, and when it works again nothing is lost."""
    session_id = house.session()
    house.due(session_id)

    def fail(_spec: StartSpec) -> Running:
        raise StartFailedError("No disk.")

    with monkeypatch.context() as broken:
        broken.setattr(house.runtime, "start", fail)
        assert service.wake(house.here, session_id).state is State.FAILED
    record = house.record(session_id)
    assert (record.wake_failures, record.wake_error) == (1, "No disk.")
    assert record.wake_retry_at is not None
    assert 2000 <= record.wake_retry_at - now_ms() <= 5000
    (instance,) = house.instances(session_id)
    assert instance.ended_at is not None
    assert instance.end_reason == "not started: No disk."
    assert service.wake(house.here, session_id).state is State.LATER
    house.change(session_id, wake_retry_at=now_ms() - 1)
    assert service.wake(house.here, session_id).state is State.STARTED
    assert house.row(session_id).tries == 0


def test_what_an_operator_gave_up_does_not_wake_again(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row leaves the session's file, the failures are forgotten, and the next message starts the agent."""
    session_id = house.session()
    house.due(session_id)
    house.route(session_id, "m1")

    def fail(_spec: StartSpec) -> Running:
        raise StartFailedError("No disk.")

    with monkeypatch.context() as broken:
        broken.setattr(house.runtime, "start", fail)
        assert service.wake(house.here, session_id).state is State.FAILED
    with house.here.db.write() as session:
        (entry,) = retries.find(session, retries.Wanted())
        assert (entry.kind, entry.error, entry.attempt) == ("wake", "No disk.", 2)
        rings = retries.give_up(session, entry)
    assert ("wake", session_id, HOST) in rings
    assert service.wake(house.here, session_id).state is State.IDLE
    assert house.row(session_id).status == "failed"
    assert house.record(session_id).wake_failures == 0
    with house.here.db.read() as session:
        assert retries.find(session, retries.Wanted()) == []
    house.due(session_id, "m2")
    assert service.wake(house.here, session_id).state is State.STARTED


def test_a_damaged_configuration_is_a_failed_start(house: Household) -> None:
    """It names the field, and holds up no other session."""
    with house.here.db.write() as session:
        group = session.get_one(AgentGroup, "ag-andy")
        change_config(session, group, {})
        session.connection().exec_driver_sql("UPDATE container_configs SET mcp_servers = 'not json'")
    session_id = house.session()
    house.due(session_id)
    assert service.wake(house.here, session_id).state is State.FAILED
    assert "mcp_servers" in (house.record(session_id).wake_error or "")


def test_an_agent_that_dies_at_once_is_not_started_in_a_circle(house: Household) -> None:
    """Its end counts as a failed start, with what it said last."""
    session_id = house.session()
    house.due(session_id)
    house.runtime.script = "sys.exit('bad luck')"
    # It may be dead, and seen to be, before the wake has had its last look.
    if service.wake(house.here, session_id).state is State.STARTED:
        house.dead(session_id)
        (instance,) = house.instances(session_id)
        service.on_exit(house.here, Exit(session_id, instance.id, 1, "exit code 1: bad luck"))
    assert service.wake(house.here, session_id).state is State.LATER
    record = house.record(session_id)
    assert record.wake_failures == 1
    assert "bad luck" in (record.wake_error or "")
    assert len(house.instances(session_id)) == 1


def test_an_outbound_that_is_no_database_is_shown(house: Household) -> None:
    """A session whose agent destroyed its file is put off, not started in a circle."""
    session_id = house.session()
    house.due(session_id)
    house.folders[session_id].outbound_db.write_bytes(b"nonsense" * 1000)
    assert service.wake(house.here, session_id).state is State.FAILED
    assert "outbound.db" in (house.record(session_id).wake_error or "")
    assert house.instances(session_id) == []


def test_a_runtime_that_is_away_kills_nobody(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be asked is not called dead: the row stays, nothing is started, and the session says why."""
    session_id = _running(house)

    def nobody(_session_id: str) -> Any:
        raise RuntimeDownError("Docker does not answer.")

    with monkeypatch.context() as away:
        away.setattr(house.runtime, "is_alive", nobody)
        away.setattr(house.runtime, "find", nobody)
        assert service.wake(house.here, session_id).state is State.FAILED
    assert [one.ended_at for one in house.instances(session_id)] == [None]
    assert house.record(session_id).wake_error == "Docker does not answer."
    assert service.wake(house.here, session_id).state is State.RUNNING


# Dying


def test_the_work_of_a_dead_agent_is_put_off(house: Household) -> None:
    """Its claim costs the row a try and five seconds; the row of the instance says how it ended."""
    session_id = _running(house, CLAIM)
    (instance,) = house.instances(session_id)
    assert instance.pid is not None
    os.kill(instance.pid, signal.SIGKILL)
    house.dead(session_id)
    rings = service.on_exit(house.here, Exit(session_id, instance.id, 137, "killed by SIGKILL"))
    assert rings == [("wake", session_id, HOST)]
    before = now_ms()
    outcome = service.wake(house.here, session_id)
    assert outcome.state is State.IDLE
    assert outcome.rings == [("deliver", session_id, HOST)]
    row = house.row(session_id)
    assert (row.status, row.tries) == ("pending", 1)
    assert row.process_after is not None
    assert iso(before + 4900) <= row.process_after <= iso(before + 6000)
    (instance,) = house.instances(session_id)
    assert (instance.end_reason, instance.exit_code) == ("killed by SIGKILL", 137)
    assert instance.ended_at is not None
    assert instance.reset_at is not None
    record = house.record(session_id)
    assert record.container_status == "stopped"
    assert record.next_due_at is not None
    assert 3500 < record.next_due_at - before < 6500
    assert record.wake_failures == 0


def test_a_burial_is_not_repeated(house: Household) -> None:
    """Looking again changes nothing: one death costs one try."""
    session_id = _running(house, CLAIM)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    for _ in range(3):
        service.wake(house.here, session_id)
    assert house.row(session_id).tries == 1


def test_a_claim_of_an_earlier_agent_costs_no_second_try(house: Household) -> None:
    """Only what this instance claimed is put off when it dies."""
    session_id = house.session()
    house.due(session_id)
    house.says(session_id, "INSERT INTO processing_ack VALUES ('m1', 'processing', '2020-01-01 00:00:00')")
    house.runtime.script = "sys.exit(1)"
    service.wake(house.here, session_id)
    house.dead(session_id)
    service.wake(house.here, session_id)
    assert house.row(session_id).tries == 0


def test_after_too_many_crashes_a_row_has_failed(house: Household) -> None:
    """Five retries, then it is over; other rows of the session go on."""
    session_id = _running(house, CLAIM)
    with open_inbound(house.folders[session_id]) as inbound:
        inbound._db.execute("UPDATE messages_in SET tries = 5")
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    assert service.wake(house.here, session_id).state is State.IDLE
    assert house.row(session_id).status == "failed"
    house.due(session_id, "m2")
    house.runtime.script = "wait()"
    assert service.wake(house.here, session_id).state is State.STARTED


def test_an_agent_that_finished_and_died_costs_nothing(house: Household) -> None:
    """What is acked is neither put off nor due."""
    session_id = _running(house, FINISH)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    assert service.wake(house.here, session_id).state is State.IDLE
    assert house.row(session_id).tries == 0
    assert house.record(session_id).wake_failures == 0


# Crashes of the waker


def test_a_row_without_an_agent_is_buried(house: Household) -> None:
    """A worker that died between recording a start and starting leaves nothing that blocks the session."""
    session_id = house.session()
    house.due(session_id)
    with house.here.db.write() as session:
        row = Instance(
            id="inst-never", session_id=session_id, agent_group_id="ag-andy", host_id=HOST, runtime="process"
        )
        row.epoch, row.started_at = 0, now_ms() - NOT_LONG_AGO_MS
        session.add(row)
    assert service.wake(house.here, session_id).state is State.STARTED
    ended, live = house.instances(session_id)
    assert (ended.id, ended.end_reason) == ("inst-never", "its end was not seen")
    assert live.ended_at is None
    assert house.row(session_id).tries == 0


def test_an_end_that_the_watcher_just_noted_is_told(house: Household, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our read of the row and our question to the runtime it noted the end and cleared it away."""
    session_id = _running(house)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)

    def cleared_away(session_id: str, instance_id: str) -> None:
        service.on_exit(house.here, Exit(session_id, instance_id, 127, "exit code 127: no such program"))

    monkeypatch.setattr(house.runtime, "last_exit", cleared_away)
    service.wake(house.here, session_id)
    ended = house.instances(session_id)[0]
    assert (ended.exit_code, ended.end_reason) == (127, "exit code 127: no such program")
    assert "no such program" in (house.record(session_id).wake_error or "")


def test_an_agent_without_a_row_is_adopted(house: Household) -> None:
    """The runtime is the authority on what runs."""
    session_id = _running(house)
    (instance,) = house.instances(session_id)
    with house.here.db.write() as session:
        session.execute(delete(Instance))
    assert service.wake(house.here, session_id).state is State.RUNNING
    (adopted,) = house.instances(session_id)
    assert (adopted.id, adopted.epoch, adopted.pid) == (instance.id, instance.epoch, instance.pid)
    assert len(house.runtime.started) == 1


def test_an_agent_that_was_believed_dead_is_adopted(house: Household) -> None:
    """A row that was ended too early is live again."""
    session_id = _running(house)
    (instance,) = house.instances(session_id)
    house.change_instance(instance.id, ended_at=now_ms(), end_reason="mistaken")
    assert service.wake(house.here, session_id).state is State.RUNNING
    (again,) = house.instances(session_id)
    assert (again.ended_at, again.end_reason) == (None, None)


def test_a_start_that_was_not_recorded_is_recorded(house: Household) -> None:
    """The pid is written by the next look."""
    session_id = _running(house)
    (instance,) = house.instances(session_id)
    house.change_instance(instance.id, runtime_id=None, pid=None)
    assert service.wake(house.here, session_id).state is State.RUNNING
    assert house.instances(session_id)[0].pid == instance.pid


def test_the_mutex_of_a_dead_worker_is_void(house: Household) -> None:
    """A worker of this host that was killed holds up nobody."""
    session_id = house.session()
    house.due(session_id)
    mine = this_owner(HOST)
    dead = Owner(HOST, mine.boot_id, mine.pid, mine.start_time + 1)
    assert leases.claim(house.here.db, f"session:{session_id}", dead, 300)
    assert service.wake(house.here, session_id).state is State.STARTED


def test_the_mutex_of_a_live_worker_holds(house: Household) -> None:
    """Who does not get it leaves the session to the holder."""
    session_id = house.session()
    house.due(session_id)
    assert leases.claim(house.here.db, f"session:{session_id}", this_owner(HOST), 300)
    assert service.wake(house.here, session_id).state is State.BUSY
    assert service.stop(house.here, session_id, "test", wait_s=0.1).state is State.BUSY


def test_epochs_grow(house: Household) -> None:
    """Each start has a larger epoch than any before."""
    session_id = _running(house)
    service.stop(house.here, session_id, "test")
    service.wake(house.here, session_id)
    epochs = [one.epoch for one in house.instances(session_id)]
    assert epochs == sorted(set(epochs))
    assert len(epochs) >= 2


# Stopping


def test_stop_proves_the_agent_dead_and_asks_for_a_last_drain(house: Household) -> None:
    """The reason is recorded whoever sees the end first, and a stop is no crash."""
    session_id = _running(house, FINISH)
    (instance,) = house.instances(session_id)
    outcome = service.stop(house.here, session_id, "by hand")
    assert outcome.state is State.STOPPED
    assert outcome.rings == [("deliver", session_id, HOST)]
    assert house.runtime.find(session_id) is None
    service.on_exit(house.here, Exit(session_id, instance.id, 143, "killed by SIGTERM"))
    (ended,) = house.instances(session_id)
    assert (ended.end_reason, ended.exit_code) == ("stopped: by hand", 0)
    assert house.record(session_id).wake_failures == 0


def test_a_stop_in_mid_turn_costs_no_try(house: Household) -> None:
    """Who stops an agent for its own reasons releases what it held: the next one takes it up at once."""
    session_id = _running(house, CLAIM)
    assert service.park(house.here, session_id, "shutdown").state is State.STOPPED
    row = house.row(session_id)
    assert (row.status, row.tries, row.process_after) == ("pending", 0, None)
    assert service.wake(house.here, session_id).state is State.STARTED


def test_a_stop_for_what_the_agent_does_costs_a_try(house: Household) -> None:
    """A stuck agent is as good as one that crashed."""
    session_id = _running(house, CLAIM)
    service.stop(house.here, session_id, "stuck", at_fault=True)
    assert house.row(session_id).tries == 1


def test_a_busy_outbound_does_not_keep_a_dead_agent_from_its_burial(
    house: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read just now puts the next start off; the row ends, and the mutex is free."""
    session_id = _running(house, CLAIM)
    os.kill(house.instances(session_id)[0].pid or 0, signal.SIGKILL)
    house.dead(session_id)
    locked = sqlite3.connect(house.folders[session_id].outbound_db, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    slow = replace(house.here, settings=replace(house.here.settings, outbound_read_timeout_s=0.2))
    assert service.wake(slow, session_id).state in {State.FAILED, State.LATER}
    locked.close()
    assert house.instances(session_id)[0].ended_at is not None
    assert house.record(session_id).wake_failures == 1


def test_stop_of_nothing_is_fine(house: Household) -> None:
    """Stopping twice is stopping once."""
    session_id = house.session()
    assert service.stop(house.here, session_id, "by hand").state is State.STOPPED
    assert service.stop(house.here, session_id, "by hand").rings == []


def test_due_rows_start_the_agent_again_after_a_stop(house: Household) -> None:
    """A message that nobody claimed before the stop is not forgotten."""
    session_id = _running(house)
    outcome = service.stop(house.here, session_id, "by hand")
    assert outcome.state is State.STARTED
    assert len(house.instances(session_id)) == 2


def test_a_closed_session_loses_its_agent(house: Household) -> None:
    """The next look stops what should not run."""
    session_id = _running(house)
    house.change(session_id, status="closed")
    assert service.wake(house.here, session_id).state is State.STOPPED
    assert house.runtime.find(session_id) is None
    assert house.instances(session_id)[0].end_reason == "stopped: the session is closed"


# Capacity


@pytest.fixture
def small_house(sqlite_central: Database, tmp_path: Path) -> Iterator[Household]:
    """A host with room for one agent."""
    household = Household.set_up(sqlite_central, tmp_path, max_containers=1)
    yield household
    household.clear()


def test_an_idle_agent_makes_room(small_house: Household) -> None:
    """The longest idle one is stopped when another session is due."""
    first = _running(small_house, FINISH)
    with open_inbound(small_house.folders[first]) as inbound:
        inbound.complete(["m1"])
    small_house.change(first, next_due_at=None)
    second = small_house.session("s2")
    small_house.due(second)
    outcome = service.wake(small_house.here, second)
    assert outcome.state is State.STARTED
    assert ("deliver", first, HOST) in outcome.rings
    assert small_house.instances(first)[0].end_reason == "stopped: its place was needed"
    assert [one.session_id for one in small_house.runtime.list()] == [second]


def test_a_busy_host_lets_a_session_wait_visibly(small_house: Household) -> None:
    """An agent at work is not stopped; when it ends, the one that waits is rung."""
    first = _running(small_house, CLAIM)
    second = small_house.session("s2")
    small_house.due(second)
    assert service.wake(small_house.here, second).state is State.WAITING
    assert "Waiting for a place" in (small_house.record(second).wake_error or "")
    assert small_house.instances(second) == []
    os.kill(small_house.instances(first)[0].pid or 0, signal.SIGKILL)
    small_house.dead(first)
    outcome = service.wake(small_house.here, first)
    assert ("wake", second, HOST) in outcome.rings
    assert service.wake(small_house.here, second).state is State.STARTED


def test_a_message_that_comes_first_saves_the_idle_agent(
    small_house: Household, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that was found idle and then got a message keeps its place."""
    first = _running(small_house, FINISH)
    small_house.change(first, next_due_at=None)
    second = small_house.session("s2")
    small_house.due(second)
    real = capacity.longest_idle

    def find_then_receive(*arguments: Any) -> Instance | None:
        found = real(*arguments)
        small_house.due(first, "m2")
        return found

    monkeypatch.setattr(capacity, "longest_idle", find_then_receive)
    assert service.wake(small_house.here, second).state is State.WAITING
    assert small_house.runtime.is_alive(first)


def test_settings_are_not_shared(house: Household) -> None:
    """Limits of an agent come from the settings of its host."""
    config = replace(house.stage.settings, container_memory_mb=300, container_nofile=300, agent_log_max_kb=10)
    session_id = house.session()
    house.due(session_id)
    service.wake(replace(house.here, settings=config), session_id)
    limits = house.runtime.started[0].limits
    assert (limits.memory_mb, limits.nofile, limits.log_kb) == (300, 300, 10)
