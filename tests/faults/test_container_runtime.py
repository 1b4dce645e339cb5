"""Faults of the Docker daemon and of containers, met by the real wake, sweep and watcher with real containers."""

from __future__ import annotations

import gc
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanotasks.central import Database
from nanotasks.central.hosts import Instance
from nanotasks.central.leases import Lease
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.runtimes import docker, docker_watch
from nanotasks.runtimes.docker_client import LABEL, remove
from nanotasks.sweep.containers import sweep
from nanotasks.testing import wait_for
from nanotasks.wake import service
from nanotasks.wake.here import State
from tests.faults.contained import CALL_S, ContainedHousehold
from tests.faults.docker_proxy import CUT, GARBLED, HALF, HANG, SWALLOW, DockerProxy, Fault, docker_proxy
from tests.household import CLAIM
from tests.scene import HOST, Speaker

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves a socket that could not connect to the collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning"),
]

CREATE = "POST /containers/create"
START = "POST /containers/[^/]+/start"
STOP = "POST /containers/[^/]+/stop"
REMOVE = "DELETE /containers/[^/]+"
INSPECT = "GET /containers/[^/]+/json"
LIST = "GET /containers/json"
EVERYTHING = ".*"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[DockerProxy]:
    """What the host takes for its Docker daemon."""
    monkeypatch.setattr(docker_watch, "RECONNECT_S", 0.05)
    monkeypatch.setattr(docker, "STARTING_S", 0.2)
    with docker_proxy() as made:
        monkeypatch.setenv("DOCKER_HOST", made.url)
        yield made


@pytest.fixture
def house(
    sqlite_central: Database, tmp_path: Path, docker_client: Any, agent_image: str, proxy: DockerProxy
) -> Iterator[ContainedHousehold]:
    """A host whose agents are scripts in containers."""
    household = ContainedHousehold.in_containers(sqlite_central, tmp_path, docker_client, agent_image)
    yield household
    household.clear()


def _running(house: ContainedHousehold, script: str = "wait()", name: str = "s1") -> str:
    session_id = house.session(name)
    house.due(session_id)
    house.runtime.script = script
    assert service.wake(house.here, session_id).state is State.STARTED
    house.told(session_id)
    return session_id


def _recovers(house: ContainedHousehold, session_id: str) -> None:
    """The next look after the pause starts the session's agent or finds it: one container, one live row."""
    house.change(session_id, wake_retry_at=None)
    assert service.wake(house.here, session_id).state in {State.STARTED, State.RUNNING}
    assert [one["State"] for one in house.containers] == ["running"]
    live = [one for one in house.instances(session_id) if one.ended_at is None]
    assert [one.id for one in live] == [house.containers[0]["Labels"][f"{LABEL}.instance"]]


def _free_leases(house: ContainedHousehold) -> bool:
    with house.here.db.read() as session:
        return all(one.owner is None for one in session.query(Lease))


# The daemon goes away and comes back


def test_a_daemon_that_is_away_kills_nobody(house: ContainedHousehold, proxy: DockerProxy) -> None:
    """Nobody is called dead because nobody can be asked, and a warm agent is left at its work."""
    session_id = _running(house)
    house.runtime.close()
    proxy.away()
    assert sweep(house.here) == []
    house.due(session_id, "m2")
    assert service.wake(house.here, session_id).state in {State.RUNNING, State.FAILED}
    assert [one.ended_at for one in house.instances(session_id)] == [None]
    proxy.back()
    assert sweep(house.here) == []
    _recovers(house, session_id)
    assert len(house.runtime.started) == 1


def test_what_ended_while_the_daemon_was_away_is_found(house: ContainedHousehold, proxy: DockerProxy) -> None:
    """The watcher connects again and tells of it; the message that came meanwhile gets an agent."""
    session_id = _running(house)
    (first,) = house.instances(session_id)
    with house.watched() as rings:
        wait_for(lambda: "GET /events" in proxy.calls, what="the watcher is up")
        proxy.away()
        house.client.kill(house.name(session_id))
        house.due(session_id, "m2")
        wait_for(lambda: not house.runtime.is_alive(session_id) if proxy._door else True)
        proxy.back()
        wait_for(lambda: house.seen, what="the exit")
        wait_for(lambda: rings)
    assert (house.seen[0].instance_id, house.seen[0].code) == (first.id, 137)
    house.change_instance(first.id, started_at=now_ms() - 20_000)
    house.answer(rings)
    assert len(house.instances(session_id)) == 2
    _recovers(house, session_id)


@pytest.mark.parametrize("fault", [CUT, HALF])
def test_a_broken_stream_of_events_is_opened_again(house: ContainedHousehold, proxy: DockerProxy, fault: Fault) -> None:
    """Whether the stream breaks between events or the answer to a question about one, the exit is told of."""
    session_id = _running(house)
    with house.watched():
        wait_for(lambda: "GET /events" in proxy.calls, what="the watcher is up")
        proxy.on(INSPECT, fault)
        proxy.on(LIST, fault)
        proxy.cut()
        house.client.kill(house.name(session_id))
        wait_for(lambda: house.seen, what="the exit")
        wait_for(lambda: not house.containers, what="the removal")
    assert {one.code for one in house.seen} == {137}


def test_half_an_event_ends_no_watch(house: ContainedHousehold, proxy: DockerProxy) -> None:
    """A stream that ends within an event is a stream that broke, and is opened again."""
    session_id = _running(house)
    proxy.on("GET /events", GARBLED, times=2)
    with house.watched():
        wait_for(lambda: proxy.calls.count("GET /events") == 3, what="the third stream")
        remove(house.client, house.name(session_id))
        wait_for(lambda: house.seen, what="the exit")


# Calls that hang, and calls whose answers are lost


@pytest.mark.parametrize("call", [CREATE, START, INSPECT, "GET /info"])
@pytest.mark.parametrize("fault", [HANG, SWALLOW, CUT, HALF])
def test_a_start_whose_calls_go_wrong_is_put_off_and_made_good(
    house: ContainedHousehold, proxy: DockerProxy, call: str, fault: Fault
) -> None:
    """The wake gives up in time, holds no lease, and the next one leaves exactly one agent."""
    session_id = house.session()
    house.due(session_id)
    proxy.on(call, fault)
    began = time.monotonic()
    outcome = service.wake(house.here, session_id)
    assert time.monotonic() - began < 4 * CALL_S
    assert proxy.met
    assert _free_leases(house)
    if outcome.state is State.FAILED:
        assert house.record(session_id).wake_failures == 1
        assert service.wake(house.here, session_id).state in {State.LATER, State.RUNNING, State.STARTED}
    _recovers(house, session_id)
    house.told(session_id)


def test_a_daemon_that_hangs_holds_up_each_session_for_a_bounded_time(
    house: ContainedHousehold, proxy: DockerProxy
) -> None:
    """Every call hangs: each wake ends after one call's time, and all go on when it is over."""
    proxy.on(EVERYTHING, HANG, times=float("inf"))
    sessions = [house.session(f"s{number}") for number in range(3)]
    for session_id in sessions:
        house.due(session_id)
        began = time.monotonic()
        assert service.wake(house.here, session_id).state is State.FAILED
        assert time.monotonic() - began < 2.5 * CALL_S
        assert _free_leases(house)
    assert sweep(house.here) == []
    proxy.mend()
    for session_id in sessions:
        house.change(session_id, wake_retry_at=None)
        assert service.wake(house.here, session_id).state is State.STARTED
    assert len(house.containers) == 3


def test_the_chat_is_told_once_that_its_message_is_kept(house: ContainedHousehold, proxy: DockerProxy) -> None:
    """After some failures in a row, and not again while the same message waits."""
    session_id = house.session()
    Speaker(house.stage, session_id, "ag-andy", house.folders[session_id]).hear("m1", reply_to="c1")
    house.change(session_id, next_due_at=0)
    proxy.away()
    counts = []
    for _ in range(house.stage.settings.wake_failures_told + 3):
        house.change(session_id, wake_retry_at=None)
        assert service.wake(house.here, session_id).state is State.FAILED
        gc.collect()
        counts.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - one line
    assert len(house.stage.deliveries(session_id)) == 1
    # Something else of this process may open a file meanwhile, but not at each try.
    assert counts != sorted(set(counts))
    proxy.back()
    _recovers(house, session_id)


@pytest.mark.parametrize("call", [STOP, REMOVE, INSPECT])
@pytest.mark.parametrize("fault", [HANG, SWALLOW, CUT])
def test_a_stop_whose_calls_go_wrong_is_made_good(
    house: ContainedHousehold, proxy: DockerProxy, call: str, fault: Fault
) -> None:
    """The agent is not called dead before it is, and the next look finds what is true."""
    session_id = _running(house, "ack('m1', 'completed'); wait()")
    house.change(session_id, status="closed")
    proxy.on(call, fault)
    began = time.monotonic()
    outcome = service.wake(house.here, session_id)
    assert time.monotonic() - began < 6 * CALL_S
    assert proxy.met
    assert _free_leases(house)
    house.change(session_id, wake_retry_at=None)
    if outcome.state is not State.STOPPED:
        house.settle()
    with house.watched():
        wait_for(lambda: not house.containers, what="no container is left")
    house.settle()
    assert all(one.ended_at is not None for one in house.instances(session_id))


# Containers that die, or do not


def test_a_container_that_was_killed_or_removed_is_buried(house: ContainedHousehold) -> None:
    """By an operator, without a word to us: the claimed row is put off, longer each time, and the agent comes again."""
    session_id = _running(house, CLAIM)
    for tries, end in enumerate(("kill", "remove"), start=1):
        if end == "kill":
            house.client.kill(house.name(session_id))
        else:
            remove(house.client, house.name(session_id))
        house.settle()
        row = house.row(session_id)
        assert (row.tries, row.status) == (tries, "pending")
        assert [one for one in house.instances(session_id) if one.ended_at is None] == []
        due_at = house.record(session_id).next_due_at
        assert due_at is not None
        # 5 s and 10 s, with jitter and time that went by.
        assert 1_000 * tries < due_at - now_ms() <= 8_000 * tries
        if end == "kill":
            _make_due(house, session_id)
            house.change(session_id, wake_retry_at=None)
            assert service.wake(house.here, session_id).state is State.STARTED
            house.told(session_id)
    with house.watched():
        wait_for(lambda: not house.containers)


def _make_due(house: ContainedHousehold, session_id: str) -> None:
    """The time has come for a row that was put off."""
    with sqlite3.connect(house.folders[session_id].inbound_db) as db:
        db.execute("UPDATE messages_in SET process_after = NULL")
    db.close()
    house.change(session_id, next_due_at=0)


@pytest.mark.parametrize("how", ["pause", "stop-signal", "silent"])
def test_an_agent_that_goes_silent_in_a_turn_is_stopped(house: ContainedHousehold, how: str) -> None:
    """Frozen or stopped from outside or just mute: after the tolerance it is stuck, ended, and its row is put off."""
    session_id = _running(house, CLAIM)
    if how == "pause":
        house.client.pause(house.name(session_id))
    elif how == "stop-signal":
        house.client.kill(house.name(session_id), "SIGSTOP")
    _grow_old(house, session_id)
    rings = sweep(house.here)
    assert ("deliver", session_id, HOST) in rings
    (ended,) = house.instances(session_id)
    assert (ended.end_reason or "").startswith("stopped: stuck")
    assert house.row(session_id).tries == 1
    assert house.containers == []


def _grow_old(house: ContainedHousehold, session_id: str, by_s: int = 120) -> None:
    live = house.instances(session_id)[-1]
    house.change_instance(live.id, started_at=now_ms() - by_s * 1000)
    house.says(session_id, "UPDATE processing_ack SET status_changed = datetime('now', ?)", f"-{by_s - 1} seconds")


def test_an_agent_that_ignores_the_question_to_stop_is_killed(house: ContainedHousehold) -> None:
    """After the grace it is dead and gone."""
    session_id = _running(house, "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell('ready'); time.sleep(600)")
    began = time.monotonic()
    assert service.park(house.here, session_id, "a test").state is State.STOPPED
    assert time.monotonic() - began < 5
    assert house.containers == []
    assert house.instances(session_id)[0].exit_code == 137


def test_an_agent_that_never_beats_is_stopped(
    house: ContainedHousehold,
) -> None:
    """Without a first sign of life a claim is not waited for longer than that takes."""
    session_id = _running(house, CLAIM)
    _grow_old(house, session_id, 200)
    sweep(house.here)
    assert (house.instances(session_id)[0].end_reason or "").startswith("stopped: stuck: no")


@pytest.mark.parametrize(
    ("changes", "script", "reason"),
    [
        ({"command": ("no-such-program",)}, "", "no-such-program"),
        ({}, "hog = bytearray(2_000_000_000); tell('fat')", "out of memory"),
        ({}, "sys.exit('no luck')", "no luck"),
    ],
)
def test_a_container_that_ends_at_once_is_no_circle(
    house: ContainedHousehold, changes: dict[str, Any], script: str, reason: str
) -> None:
    """A wrong entrypoint, too little memory, a runner that gives up: each is a failed start with its reason."""
    session_id = house.session()
    house.due(session_id)
    house.runtime.script, house.runtime.changes = script, changes  # type: ignore[attr-defined]
    with house.watched() as rings:
        if service.wake(house.here, session_id).state is State.STARTED:
            wait_for(lambda: rings, 20, what="the exit")
            house.answer(rings[:1])
    record = house.record(session_id)
    assert record.wake_failures == 1
    assert record.wake_retry_at is not None
    assert reason in (record.wake_error or "")
    assert house.containers == []


# Containers of others


def _sleeper(house: ContainedHousehold, labels: dict[str, str], name: str | None = None) -> dict[str, Any]:
    """A container that somebody else made, not yet started."""
    made: dict[str, Any] = house.client.create_container(
        house.runtime.image,  # type: ignore[attr-defined]
        ["sleep", "60"],
        labels=labels,
        name=name,
        host_config=house.client.create_host_config(network_mode="none"),
    )
    return made


def test_containers_with_half_our_labels_stop_no_pass(house: ContainedHousehold, docker_client: Any) -> None:
    """A container with our installation's label and nothing else is passed over by sweep and watcher."""
    session_id = _running(house)
    labels = {f"{LABEL}.install": house.install, f"{LABEL}.host": HOST}
    sleeper = _sleeper(house, labels)
    docker_client.start(sleeper["Id"])
    assert sweep(house.here) == []
    with house.watched():
        docker_client.kill(sleeper["Id"])
        house.client.kill(house.name(session_id))
        wait_for(lambda: house.seen)
    assert [one.session_id for one in house.seen] == [session_id]
    assert docker_client.inspect_container(sleeper["Id"])["State"]["Status"] == "exited"


@pytest.mark.parametrize("labelled", [False, True])
def test_a_container_of_others_with_our_name_is_not_touched(
    house: ContainedHousehold, docker_client: Any, labelled: bool
) -> None:
    """Not adopted, stopped or removed: the start fails and says what to do, and other sessions go on."""
    session_id = house.session()
    house.due(session_id)
    labels = {f"{LABEL}.install": "another", f"{LABEL}.session": session_id} if labelled else {}
    stranger = _sleeper(house, labels, house.name(session_id))
    try:
        docker_client.start(stranger["Id"])
        assert service.wake(house.here, session_id).state is State.FAILED
        assert "docker rm -f" in (house.record(session_id).wake_error or "")
        assert service.park(house.here, session_id, "a test").state is State.STOPPED
        assert docker_client.inspect_container(stranger["Id"])["State"]["Running"]
        _running(house, name="s2")
    finally:
        remove(docker_client, stranger["Id"])
    house.change(session_id, wake_retry_at=None)
    assert service.wake(house.here, session_id).state is State.STARTED


def test_an_agent_of_a_session_that_is_gone_is_stopped(house: ContainedHousehold, docker_client: Any) -> None:
    """It is ours by all its labels, so it is ended; one of another installation runs on."""
    _running(house)
    other = {f"{LABEL}.install": "another", f"{LABEL}.host": HOST, f"{LABEL}.session": "sess-x"}
    theirs = _sleeper(house, other)
    try:
        docker_client.start(theirs["Id"])
        with house.here.db.write() as session:
            session.execute(Instance.__table__.delete())
            session.execute(AgentSession.__table__.delete())
        sweep(house.here)
        assert house.containers == []
        assert docker_client.inspect_container(theirs["Id"])["State"]["Running"]
    finally:
        remove(docker_client, theirs["Id"])
