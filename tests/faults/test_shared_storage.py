"""Two hosts that share their storage: one is lost, stopped or cut off, and the other goes on with its agents.

The intervals are short here; what is promised for the true ones is in `test_recovery.py`. Promise I5 is what these
are about: the agents of a host that nobody hears of have ended before others are started.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select

from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.owners import process_start_time
from nanotasks.runtimes import host_lease
from nanotasks.runtimes.select import runtime
from nanotasks.testing import PostgresServer, wait_for
from tests.installation import Installation, children, gone, installation, named, wait_until_gone

pytestmark = [pytest.mark.faults, pytest.mark.postgres]

QUICK = {
    "host_heartbeat_s": "0.5",
    "host_timeout_s": "4",
    "agent_lease_margin_s": "1.5",
    "sweep_signals_period_s": "0.5",
    "sweep_due_period_s": "0.5",
    "sweep_containers_period_s": "0.5",
    "sweep_hosts_period_s": "0.5",
    "resignal_after_s": "1",
    "container_stop_grace_s": "1",
}


@dataclass
class Pair:
    """Host `a` has a worker, and the agent lives there; `b` has a worker, and the beat."""

    a: Installation
    b: Installation
    worker: int

    def say(self, number: int, text: str) -> None:
        self.b.say([{"id": f"m{number}", "platform_id": "room", "sender_id": "ann", "text": text}])

    def heard(self) -> list[str]:
        return self.b.heard("room")

    def home(self) -> tuple[str | None, int]:
        """Where the agent group lives, and its epoch."""
        with self.b.central() as db, db.read() as session:
            return tuple(session.execute(select(AgentGroup.host_id, AgentGroup.epoch)).one())

    def starts(self) -> list[tuple[str, str | None]]:
        """Every start of the agent: host, and how it ended."""
        with self.b.central() as db, db.read() as session:
            rows = session.execute(select(Instance.host_id, Instance.end_reason).order_by(Instance.started_at))
            return [tuple(row) for row in rows]

    def arm(self, host: Installation, fault: str) -> None:
        """From now on this happens in the processes of a host."""
        fresh = host.directory / "fault.new"
        fresh.write_text(fault)
        fresh.rename(host.directory / "fault")
        # Hits are counted from here: the next one is the first.
        (host.directory / "tally").unlink(missing_ok=True)

    def agent(self, host: Installation) -> list[int]:
        """The processes of the agent on a host: its launcher and what it started."""
        pids = [running.pid for running in runtime(host.settings).list() if running.pid is not None]
        launchers = [int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1]) for pid in pids]
        return [*launchers, *pids]

    def processes(self) -> list[int]:
        """Everything of host `a` but its agents."""
        return [self.worker, *children(self.worker)]


@pytest.fixture
def pair(tmp_path: Path, postgres: PostgresServer, migrated_postgres: str, redis_url: str) -> Iterator[Pair]:
    common = {
        "redis_url": redis_url,
        "database_url": postgres.create_database(migrated_postgres),
        "shared_dir": str(tmp_path / "shared"),
        "file_dir": str(tmp_path / "channel"),
        **QUICK,
    }
    (tmp_path / "shared").mkdir()
    with (
        installation(tmp_path / "a", host_id="a", **common) as a,
        installation(tmp_path / "b", host_id="b", **common) as b,
    ):
        for host in (a, b):
            tally = str(host.directory / "tally")
            host.environment |= {"NANOTASKS_FAULT": f"@{host.directory / 'fault'}", "NANOTASKS_FAULT_TALLY": tally}
        worker = a.start("worker")
        b.start("worker")
        b.start("beat")
        for host in (a, b):
            wait_for(lambda host=host: '"worker_ready"' in host.log("worker"), 30, what="a worker")  # type: ignore[misc]
        b.apply(
            groups=[{"folder": "andy", "name": "Andy", "host": "a"}],
            chats=[{"chat": "file:room", "unknown_sender_policy": "public"}],
            wirings=[{"chat": "file:room", "group": "andy", "engage_pattern": "."}],
        )
        made = Pair(a, b, worker.pid)
        made.say(0, "echo first")
        wait_for(lambda: made.heard() == ["first"], 30, what="the first answer")
        assert made.starts() == [("a", None)]
        yield made


def test_the_agents_of_a_host_that_is_lost_go_on_elsewhere(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """A machine is gone with everything on it: the same conversation goes on on the other one, the turn included."""
    pair.say(1, "slow 2 second")
    wait_for(lambda: _claims(pair) == 1, 10, what="the turn")
    for pid in (*pair.processes(), *pair.agent(pair.a)):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    pair.say(2, "count")
    wait_for(lambda: len(pair.heard()) == 3, 40, what="the answers of the other host")
    with capsys.disabled():
        taken = time.monotonic() - began - 2.0
        sys.stdout.write(f"\na host is gone to its chats are answered by another (silence of 4 s): {taken:.1f} s\n")
    # It counts the messages of this conversation, over both hosts.
    assert pair.heard() == ["first", "second", "I have answered 2 messages in this conversation."]
    assert pair.home() == ("b", 1)
    assert pair.starts()[0] == ("a", "its host a is gone")
    assert [host for host, _ in pair.starts()[1:]] == ["b"]


def test_a_host_that_was_stopped_has_lost_its_agents(pair: Pair) -> None:
    """A suspended machine comes back in the middle of a turn that another host has answered: it adds nothing."""
    pair.say(1, "slow 2 second")
    wait_for(lambda: _claims(pair) == 1, 10, what="the turn")
    agent = pair.agent(pair.a)
    frozen = [*pair.processes(), *agent]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: pair.heard() == ["first", "second"], 40, what="the answer of the other host")
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    wait_until_gone(agent)
    wait_for(lambda: _state(pair, "a") == "up", 20, what="the return of the first host")
    pair.say(2, "echo third")
    wait_for(lambda: len(pair.heard()) == 3, 20, what="the next answer")
    assert pair.heard() == ["first", "second", "third"]
    assert pair.home() == ("b", 1)
    assert runtime(pair.a.settings).list() == []
    assert "host_lease_lost" in _agent_log(pair.a)


def test_an_agent_ends_before_its_host_counts_as_gone(pair: Pair) -> None:
    """Only the keeper is stopped, the agent and the workers live on: it has ended when the group moves."""
    (_launcher, agent) = pair.agent(pair.a)
    started = process_start_time(agent)
    for pid in named(children(pair.worker), "keeper"):
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: pair.home() == ("b", 1) or gone(agent), 20, every_s=0.02, what="the end of the agent")
    assert process_start_time(agent) != started
    assert pair.home() == ("a", 0)
    pair.say(1, "echo second")
    wait_for(lambda: pair.heard() == ["first", "second"], 40, what="the answer of the other host")
    for pid in named(children(pair.worker), "keeper"):
        os.kill(pid, signal.SIGCONT)
    assert pair.home() == ("b", 1)


def test_a_mover_that_dies_has_moved_the_group(pair: Pair) -> None:
    """Killed before it signalled anybody: the sweeps of the new host find what is to be done."""
    pair.arm(pair.b, "move.after_commit:1:kill9")
    for pid in (*pair.processes(), *pair.agent(pair.a)):
        os.kill(pid, signal.SIGKILL)
    pair.say(1, "echo second")
    wait_for(lambda: pair.heard() == ["first", "second"], 40, what="the answer of the other host")
    assert "move.after_commit" in (pair.b.directory / "tally").read_text()
    assert pair.home() == ("b", 1)


def test_a_keeper_that_dies_before_it_tells_its_agents(pair: Pair) -> None:
    """The next one tells them in time, and the agent lives on."""
    (keeper,) = named(children(pair.worker), "keeper")
    pair.arm(pair.a, "lease.before_write:1:kill9")
    wait_until_gone([keeper])
    pair.say(1, "echo second")
    wait_for(lambda: pair.heard() == ["first", "second"], 20, what="the answer")
    died = _last_sign(pair.a)
    lease_ms = pair.a.settings.agent_lease_s * 1000
    wait_for(lambda: _last_sign(pair.a) > died + 2 * lease_ms, 20, what="signs of life for two leases")
    assert pair.starts() == [("a", None)]
    assert pair.home() == ("a", 0)


def test_an_operator_moves_a_group_and_empties_a_host(pair: Pair) -> None:
    """Its agent is stopped on the one host and started on the other, and what is said meanwhile is answered once."""
    pair.b.run("groups", "update", "andy", "--host", "b")
    pair.say(1, "count")
    wait_for(lambda: len(pair.heard()) == 2, 20, what="the answer of the other host")
    wait_for(lambda: runtime(pair.a.settings).list() == [], 10, what="no agent on the first host")
    assert pair.home() == ("b", 1)
    assert pair.heard() == ["first", "I have answered 1 messages in this conversation."]
    drained = json.loads(pair.a.run("hosts", "drain", "b", "--json").stdout)
    assert (drained["groups_moving"], drained["groups_staying"]) == (1, 0)
    pair.say(2, "echo third")
    wait_for(lambda: pair.heard()[2:] == ["third"], 20, what="the answer of the first host")
    wait_for(lambda: runtime(pair.b.settings).list() == [], 10, what="no agent on the host that drains")
    assert pair.home() == ("a", 2)
    ends = [("a", "stopped: the agent group lives on b"), ("b", "stopped: the agent group lives on a"), ("a", None)]
    assert pair.starts() == ends
    assert pair.b.run("events", "--kind", "group", "--json").stdout.count('"group.moved"') == 2


def _last_sign(host: Installation) -> int:
    """When the last sign of life began that agents were told of, in milliseconds since boot."""
    return int((host_lease.folder(host.settings) / host_lease.NAME).read_text().split()[1])


def _claims(pair: Pair) -> int:
    (outbound,) = Path(pair.a.settings.shared_dir).glob("sessions/*/*/workspace/outbound.db")
    connection = sqlite3.connect(f"file:{outbound}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM processing_ack WHERE status = 'processing'").fetchone()[0])
    finally:
        connection.close()


def _state(pair: Pair, host_id: str) -> str:
    with pair.b.central() as db, db.read() as session:
        return session.get_one(Host, host_id).state


def _agent_log(host: Installation) -> str:
    return "".join(path.read_text() for path in (host.settings.data_dir / "logs" / "agents").glob("*"))
