"""The alarm of a host: due work is signalled when it is due, and noticed soon when it is planned."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import update

from nanotasks.central import Database
from nanotasks.central.chats import Chat
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.ops.alarm import Commits, sound_alarm
from nanotasks.settings import Settings
from nanotasks.sweep.lost import Signal
from nanotasks.testing import wait_for


@dataclass
class Alarm:
    """A sounding alarm, and when it rang what."""

    central: Database
    rung: list[tuple[int, Signal]] = field(default_factory=list)

    def plan(self, session_id: str, due_ms: int) -> None:
        with self.central.write() as session:
            session.execute(update(AgentSession).where(AgentSession.id == session_id).values(next_due_at=due_ms))

    def ring_all(self, found: Iterable[Signal]) -> None:
        self.rung += [(now_ms(), signal) for signal in found]


@pytest.fixture
def alarm(central: Database) -> Iterator[Alarm]:
    with central.write() as session:
        session.add(Host(id="a", heartbeat_at=now_ms(), created_at=0))
        session.flush()
        session.add(AgentGroup(id="g", name="g", folder="g", created_at=0, host_id="a"))
        session.add(Chat(id="c", channel_type="file", platform_id="c", created_at=0))
        session.flush()
        for name in ("s1", "s2"):
            session.add(AgentSession(id=name, agent_group_id="g", messaging_group_id="c", route_key=name, created_at=0))
    made, stop = Alarm(central), threading.Event()
    thread = threading.Thread(target=sound_alarm, args=(central, Settings(host_id="a"), made.ring_all, stop))
    thread.start()
    yield made
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_due_work_is_signalled_at_its_time(alarm: Alarm) -> None:
    """Not before, and hardly after; each once."""
    first, second = now_ms() + 400, now_ms() + 700
    alarm.plan("s1", first)
    alarm.plan("s2", second)
    wait_for(lambda: len(alarm.rung) == 2, what="both signals")
    for (rung_at, signal), (name, due_ms) in zip(alarm.rung, (("s1", first), ("s2", second)), strict=True):
        assert signal == ("wake", name, "a")
        assert 0 <= rung_at - due_ms < 1000  # a busy machine; without an alarm it is the sweep, after seconds


def test_work_that_is_planned_for_at_once_is_noticed_soon(alarm: Alarm) -> None:
    """A due time that is set in the past is signalled within a look."""
    planned = now_ms()
    alarm.plan("s1", planned - 1000)
    wait_for(lambda: alarm.rung, what="the signal")
    assert alarm.rung[0][0] - planned < 600


def test_only_commits_of_others_are_news(sqlite_central: Database) -> None:
    """Where nobody has committed nothing is read."""
    commits = Commits(sqlite_central)
    assert commits.made()
    assert not commits.made()
    with sqlite_central.write() as session:
        session.add(Host(id="a", heartbeat_at=0, created_at=0))
    assert commits.made()
    assert not commits.made()
    commits.close()
