"""The rows that record every start, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from nanotasks.central import Database
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.runtimes.contract import Running
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.settings import Settings
from nanotasks.wake import instances
from nanotasks.wake.here import Here
from nanotasks.wake.instances import SessionFacts
from nanotasks.wake.trouble import KEPT, start_failed


@pytest.fixture
def here(central: Database, tmp_path: Path) -> Iterator[Here]:
    """A host with room for two agents, and sessions s1 to s5."""
    runtime = ProcessRuntime(tmp_path)
    with central.write() as session:
        session.add(Host(id="h", heartbeat_at=0, created_at=0))
        session.flush()
        session.add(AgentGroup(id="ag", name="a", folder="a", created_at=0, host_id="h"))
        session.flush()
        for number in range(1, 6):
            name = f"s{number}"
            session.add(AgentSession(id=name, agent_group_id="ag", route_key=name, created_at=0, next_due_at=number))
    settings = Settings(data_dir=tmp_path, host_id="h", max_containers=2)
    yield Here(central, settings, runtime, lambda _name: runtime)


def _facts(here: Here, session_id: str) -> SessionFacts:
    found = instances.read(here, session_id)
    assert found is not None
    return found


def _running(session_id: str, instance_id: str) -> Running:
    return Running(session_id, instance_id, 7, "1:2", now_ms(), 1, 2)


def test_one_live_instance_per_session(here: Here) -> None:
    """The database refuses a second one until the first has ended."""
    assert instances.enter(here, _facts(here, "s1"), "i1", 1)
    with pytest.raises(IntegrityError):
        instances.enter(here, _facts(here, "s1"), "i2", 2)
    live = _facts(here, "s1").live
    assert live is not None
    instances.end(here.db, live, "over")
    assert instances.enter(here, _facts(here, "s1"), "i2", 2)


def test_simultaneous_starts_do_not_overfill_the_host(here: Here) -> None:
    """The last place is taken once."""
    names = [f"s{number}" for number in range(1, 6)]
    with ThreadPoolExecutor(5) as pool:
        entered = list(pool.map(lambda name: instances.enter(here, _facts(here, name), f"i-{name}", 1), names))
    assert sum(entered) == 2
    assert instances.is_full(here)


def test_the_first_reason_stays(here: Here) -> None:
    """Who stops an agent says why; who sees the end only adds the code."""
    instances.enter(here, _facts(here, "s1"), "i1", 1)
    instances.note_exit(here.db, "i1", None, "stopped: by hand")
    instances.note_exit(here.db, "i1", 143, "killed by SIGTERM")
    live = _facts(here, "s1").live
    assert live is not None
    instances.end(here.db, live, "its end was not seen")
    ended = instances.by_id(here.db, "i1")
    assert ended is not None
    assert (ended.end_reason, ended.exit_code) == ("stopped: by hand", 143)
    instances.note_exit(here.db, "i1", 0, "too late")
    assert (instances.by_id(here.db, "i1") or ended).exit_code == 143


def test_adoption(here: Here) -> None:
    """An unknown agent gets a row, a wrongly ended one is live again, and no second live row is made."""
    assert instances.adopt(here, _facts(here, "s1"), _running("s1", "i1"), "process", False)
    live = _facts(here, "s1").live
    assert live is not None
    assert (live.id, live.epoch, live.runtime_id) == ("i1", 7, "1:2")
    assert not instances.adopt(here, _facts(here, "s1"), _running("s1", "i2"), "process", False)
    instances.end(here.db, live, "mistaken")
    assert instances.adopt(here, _facts(here, "s1"), _running("s1", "i1"), "process", False)
    assert _facts(here, "s1").live is not None


def test_failures_grow_the_pause(here: Here) -> None:
    """5 s, doubling, at most five minutes, less up to a half by luck."""
    pauses = []
    for _ in range(10):
        start_failed(here, "s1", "No disk.")
        pauses.append((_facts(here, "s1").agent_session.wake_retry_at or 0) - now_ms())
    assert 2000 <= pauses[0] <= 5000
    assert 4900 <= pauses[1] <= 10_000
    assert 149_000 <= pauses[9] <= 300_000
    assert not _facts(here, "s1").is_due(now_ms())
    instances.start_proved(here.db, ["s1", "s2"])
    assert _facts(here, "s1").agent_session.wake_error is None
    assert _facts(here, "s1").is_due(now_ms())


def test_after_a_while_the_chat_is_told_once(here: Here) -> None:
    """With the fifth failure in a row, where its message came from; not again while that message waits."""
    with here.db.write() as session:
        session.add(
            InboundEvent(
                id="e1",
                channel_type="file",
                platform_id="family",
                platform_message_id="m1",
                digest="",
                accept_order=1,
                kind="chat",
                timestamp="",
                content="{}",
                received_at=1,
            )
        )
        session.flush()
        session.add(
            InboundRoute(
                event_id="e1",
                session_id="s1",
                agent_group_id="ag",
                trigger=1,
                inbound_id="m1:ag",
                reply_channel_type="file",
                reply_platform_id="family",
                reply_thread_id="t1",
                state="appended",
                created_at=1,
            )
        )
    assert [start_failed(here, "s1", "outbound.db is gone.") for _ in range(5)] == [
        *[[]] * 4,
        [("deliver", "s1", "h")],
    ]
    for _ in range(3):
        start_failed(here, "s1", "outbound.db is gone.")
    with here.db.read() as session:
        (told,) = session.scalars(select(Delivery)).all()
    assert (told.platform_id, told.thread_id, told.state, told.host_id) == ("family", "t1", "pending", "h")
    assert json.loads(told.content) == {"text": KEPT}


def test_a_failure_for_which_nobody_waits_tells_nobody(here: Here) -> None:
    """Scheduled work has no chat that asked for it."""
    assert not any(start_failed(here, "s1", "No disk.") for _ in range(6))


def test_the_longest_waiting_session_comes_first(here: Here) -> None:
    """Those with an agent, put off, closed or not due do not wait."""
    instances.enter(here, _facts(here, "s1"), "i1", 1)
    start_failed(here, "s2", "No disk.")
    with here.db.write() as session:
        session.get_one(AgentSession, "s3").status = "closed"
    assert instances.waiting_sessions(here, 10) == ["s4", "s5"]


def test_unwanted_agents_are_found(here: Here) -> None:
    """Of closed sessions, and of groups that moved away."""
    instances.enter(here, _facts(here, "s1"), "i1", 1)
    assert instances.unwanted_on(here) == []
    with here.db.write() as session:
        session.get_one(AgentSession, "s1").status = "closed"
    assert instances.unwanted_on(here) == ["s1"]
    with here.db.write() as session:
        session.get_one(AgentSession, "s1").status = "active"
        session.get_one(AgentGroup, "ag").host_id = None
    assert instances.unwanted_on(here) == ["s1"]
