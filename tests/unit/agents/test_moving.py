"""Agent groups that move between hosts with the same files, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from nanotasks.agents import moving
from nanotasks.agents.groups import change_group
from nanotasks.central import Database
from nanotasks.central.changes import StateChange
from nanotasks.central.deliveries import Delivery
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.errors import ConflictError
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.settings import Settings
from nanotasks.sweep import hosts
from nanotasks.sweep.takeover import take_over
from nanotasks.wake import instances, service
from nanotasks.wake.here import Here, Outcome, State

A = Settings(host_id="a", host_heartbeat_s=5.0, host_timeout_s=28.0)


@pytest.fixture
def db(central: Database) -> Database:
    """Hosts `a`, `b` and `c`, of which `a` and `b` share their storage; the group `ag` with a session lives on `a`."""
    with central.write() as session:
        for name, volume in (("a", "shelf"), ("b", "shelf"), ("c", None)):
            session.add(Host(id=name, heartbeat_at=central.now_ms(session), created_at=0, volume=volume))
        session.flush()
        session.add(AgentGroup(id="ag", name="Andy", folder="andy", created_at=0, host_id="a"))
        session.flush()
        session.add(AgentSession(id="s1", agent_group_id="ag", route_key="s1", created_at=0, next_due_at=0))
    return central


def falls_silent(db: Database, host_id: str = "a", *, found_ago_ms: int = 0, silence_ms: int = 30_000) -> None:
    """The host's last heartbeat was so long before it was found silent."""
    with db.write() as session:
        found = db.now_ms(session) - found_ago_ms
        silent = {"silent_at": found, "heartbeat_at": found - silence_ms, "state": "down"}
        session.execute(update(Host).where(Host.id == host_id).values(silent))


def an_instance(fenced: int = 1, host_id: str = "a") -> Instance:
    return Instance(
        id="i1",
        session_id="s1",
        agent_group_id="ag",
        host_id=host_id,
        runtime="process",
        epoch=1,
        fenced=fenced,
        started_at=now_ms(),
    )


def runs(db: Database, *, fenced: int = 1) -> None:
    with db.write() as session:
        session.add(an_instance(fenced))


def hosts_gone(db: Database) -> list[str]:
    with db.read() as session:
        now = db.now_ms(session)
        return [one.id for one in session.scalars(select(Host)) if moving.is_gone(one, now, A)]


def home(db: Database) -> tuple[str | None, int]:
    with db.read() as session:
        group = session.get_one(AgentGroup, "ag")
        return group.host_id, group.epoch


def test_a_group_of_a_host_that_is_gone_moves_to_one_with_its_files(db: Database) -> None:
    """Not before the silence was confirmed, once, and with the signals that let its sessions go on."""
    assert take_over(db, A) == []
    falls_silent(db, found_ago_ms=9_000)
    assert take_over(db, A) == []
    falls_silent(db, found_ago_ms=10_000)
    (moved,) = take_over(db, A)
    assert (moved.from_host, moved.to_host, moved.epoch, home(db)) == ("a", "b", 1, ("b", 1))
    assert moved.signals == [("wake", "s1", "a"), ("append", "s1", "b"), ("wake", "s1", "b"), ("deliver", "s1", "b")]
    assert take_over(db, A) == []
    with db.read() as session:
        assert session.scalars(select(StateChange.name)).all() == ["group.moved"]


def test_a_sign_of_life_ends_the_silence(db: Database) -> None:
    """A host that comes back before its groups are gone keeps them."""
    falls_silent(db, found_ago_ms=60_000)
    hosts.heartbeat(db, A, volume="shelf")
    assert take_over(db, A) == []
    assert home(db) == ("a", 0)


def test_the_silence_is_found_by_the_sweep(db: Database) -> None:
    """Also that of a host which was stopped a moment ago and called down for that, and of one that drains."""
    with db.write() as session:
        long_ago = db.now_ms(session) - 28_001
        session.execute(update(Host).where(Host.id == "a").values(heartbeat_at=long_ago, state="down"))
        session.execute(update(Host).where(Host.id == "c").values(heartbeat_at=long_ago, state="draining"))
    hosts.mark_silent(db, A)
    with db.read() as session:
        found = session.scalars(select(Host.id).where(Host.silent_at.is_not(None)).order_by(Host.id)).all()
        assert found == ["a", "c"]
        first = session.scalars(select(Host.silent_at).where(Host.id == "a")).one()
    hosts.mark_silent(db, A)
    with db.read() as session:
        assert session.scalars(select(Host.silent_at).where(Host.id == "a")).one() == first


def test_after_all_hosts_were_off_each_has_time_to_come_back(db: Database) -> None:
    """Else the first that is switched on again would take everything."""
    falls_silent(db, found_ago_ms=27_000, silence_ms=3_600_000)
    assert take_over(db, A) == []
    falls_silent(db, found_ago_ms=28_000, silence_ms=3_600_000)
    assert len(take_over(db, A)) == 1


def test_a_host_whose_agents_go_on_for_longer_is_waited_for(db: Database) -> None:
    """The settings of two hosts may differ; what the silent one has told its agents counts."""
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "a").values(agent_lease_ms=60_000))
    falls_silent(db, found_ago_ms=37_000)
    assert hosts_gone(db) == []
    falls_silent(db, found_ago_ms=38_000)
    assert hosts_gone(db) == ["a"]


def test_agents_that_would_not_stop_by_themselves_keep_their_group(db: Database) -> None:
    """Nobody knows whether they run; their host has to say so."""
    runs(db, fenced=0)
    falls_silent(db, found_ago_ms=60_000)
    assert take_over(db, A) == []
    with db.write() as session:
        session.execute(update(Instance).values(fenced=1))
    assert len(take_over(db, A)) == 1


@pytest.mark.parametrize(
    "change", [{"volume": None}, {"volume": "another"}, {"state": "draining"}, {"silent_at": 1}, {"capacity": 0}]
)
def test_without_a_host_that_has_its_files_a_group_stays(db: Database, change: dict[str, object]) -> None:
    """It waits for its own."""
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "b").values(change))
    falls_silent(db, found_ago_ms=60_000)
    assert take_over(db, A) == []
    assert home(db) == ("a", 0)


def test_groups_are_spread_over_the_hosts_that_are_left(db: Database) -> None:
    """Each goes where fewest are at that moment, and one sweep moves no more than its batch."""
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "c").values(volume="shelf"))
        for number in range(5):
            session.add(AgentGroup(id=f"g{number}", name="g", folder=f"g{number}", created_at=0, host_id="a"))
    falls_silent(db, found_ago_ms=60_000)
    first = take_over(db, replace(A, sweep_batch=4))
    second = take_over(db, replace(A, sweep_batch=4))
    assert (len(first), len(second)) == (4, 2)
    assert sorted(moved.to_host for moved in first + second) == ["b", "b", "b", "c", "c", "c"]


def test_what_waits_to_be_sent_goes_along(db: Database) -> None:
    """Also what was given up, since it may be sent once more; what is done stays as it was."""
    with db.write() as session:
        for state, projected in (("retrying", None), ("dead", 1), ("delivered", None), ("delivered", 1)):
            session.add(delivery(f"{state}-{projected}", state, projected))
        group = session.get_one(AgentGroup, "ag")
        assert moving.move(session, group, "b", "a test") is not None
    with db.read() as session:
        found = dict(session.execute(select(Delivery.id, Delivery.host_id)).all())
    assert found == {"retrying-None": "b", "dead-1": "b", "delivered-None": "b", "delivered-1": "a"}


def test_a_group_moves_once(db: Database) -> None:
    """Of two that moved it at one time the second changes nothing: it shows the epoch it has seen."""
    with db.read() as session:
        seen = session.get_one(AgentGroup, "ag")
    for wanted in (True, False):
        with db.write() as session:
            assert (moving.move(session, seen, "b", "a test") is not None) is wanted
    assert home(db) == ("b", 1)


def test_an_operator_moves_a_group_where_its_files_are(db: Database) -> None:
    """And where somebody works; what follows is to be signalled. Elsewhere it is refused, and says why."""
    runs(db)
    for host_id, said in (("c", "Its sessions are files on that host"), (None, "Its sessions are files on that host")):
        with pytest.raises(ConflictError, match="cannot move away from a") as refused, db.write() as session:
            change_group(session, session.get_one(AgentGroup, "ag"), {"host_id": host_id})
        assert said in str(refused.value.why)
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "b").values(state="down"))
    with pytest.raises(ConflictError, match="which is down"), db.write() as session:
        change_group(session, session.get_one(AgentGroup, "ag"), {"host_id": "b"})
    assert home(db) == ("a", 0)
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "b").values(state="up"))
        group = session.get_one(AgentGroup, "ag")
        moved = change_group(session, group, {"host_id": "b", "name": "Andrea"})
        assert (group.host_id, group.epoch, group.name) == ("b", 1, "Andrea")
    assert moved is not None
    assert moved.signals[0] == ("wake", "s1", "a")
    assert home(db) == ("b", 1)


@pytest.mark.parametrize("act", [service.wake, lambda here, name: service.stop(here, name, "a test")])
def test_the_agent_of_the_new_host_is_left_alone(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Here, str], Outcome]
) -> None:
    """Who had looked before the move finds, once it has the mutex, an agent that another host has started."""
    here = host(db, tmp_path, "a")
    mutex = service._mutex

    def late(*given: Any) -> Any:
        with db.write() as session:
            group = session.get_one(AgentGroup, "ag")
            if group.host_id == "a":
                moving.move(session, group, "b", "a test")
                session.add(an_instance(host_id="b"))
        return mutex(*given)

    monkeypatch.setattr(service, "_mutex", late)
    done = act(here, "s1")
    assert (done.state, done.rings) == (State.NOT_HERE, [("wake", "s1", "b")])
    with db.read() as session:
        assert session.scalars(select(Instance.ended_at)).all() == [None]


def test_no_start_is_entered_for_a_group_that_has_moved(db: Database, tmp_path: Path) -> None:
    """Its facts were read before the move."""
    here = host(db, tmp_path, "a")
    facts = instances.read(here, "s1")
    assert facts is not None
    with db.write() as session:
        moving.move(session, session.get_one(AgentGroup, "ag"), "b", "a test")
    with pytest.raises(instances.GroupMovedError):
        instances.enter(here, facts, "i1", 1)
    assert instances.enter(host(db, tmp_path, "b"), facts, "i1", 1)


def test_a_signal_that_came_to_the_old_host_is_passed_on(db: Database, tmp_path: Path) -> None:
    """To the new one; and from there to the old one, while that has still an agent to stop."""
    with db.write() as session:
        moving.move(session, session.get_one(AgentGroup, "ag"), "b", "a test")
    passed_on = service.wake(host(db, tmp_path, "a"), "s1")
    assert (passed_on.state, passed_on.rings) == (State.NOT_HERE, [("wake", "s1", "b")])
    runs(db)
    passed_back = service.wake(host(db, tmp_path, "b"), "s1")
    assert (passed_back.state, passed_back.rings) == (State.NOT_HERE, [("wake", "s1", "a")])


def test_a_start_that_is_being_entered_is_waited_for(db: Database) -> None:
    """The mover sees it, or comes first; never does it move a group away from under an agent that is about to run."""
    falls_silent(db, found_ago_ms=60_000)
    with ThreadPoolExecutor(1) as pool:
        with db.write() as session:
            moving.lock_host(session, "a")
            mover = pool.submit(take_over, db, A)
            with pytest.raises(TimeoutError):
                mover.result(0.3)
            session.add(an_instance(fenced=0))
        assert mover.result(20) == []
    assert home(db) == ("a", 0)


def test_an_agent_that_is_recorded_on_another_host_is_found(db: Database, tmp_path: Path) -> None:
    """Its own host ends it while it lives; the new one may as soon as that is gone."""
    here = host(db, tmp_path, "b")
    runs(db)
    assert instances.left_by_others(here) == []
    with db.write() as session:
        moving.move(session, session.get_one(AgentGroup, "ag"), "b", "a test")
    assert instances.left_by_others(here) == ["s1"]
    assert _is_gone(here) is False
    falls_silent(db, found_ago_ms=60_000)
    assert _is_gone(here) is True
    with db.write() as session:
        session.execute(update(Instance).values(fenced=0))
    assert _is_gone(here) is False


def _is_gone(here: Here) -> bool:
    facts = instances.read(here, "s1")
    assert facts is not None
    return facts.live_host_gone


def host(db: Database, tmp_path: Path, host_id: str) -> Here:
    runtime = ProcessRuntime(tmp_path)
    return Here(db, replace(A, host_id=host_id, data_dir=tmp_path), runtime, lambda _name: runtime)


def delivery(name: str, state: str, projected_at: int | None) -> Delivery:
    return Delivery(
        id=name,
        session_id="s1",
        agent_group_id="ag",
        host_id="a",
        message_out_id=name,
        seq=1,
        lane="l",
        kind="chat",
        content="{}",
        state=state,
        projected_at=projected_at,
        created_at=0,
    )
