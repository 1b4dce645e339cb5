"""The lease of a host for its agents: who writes it when, and when an agent ends."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from agent_runner.host_lease import EXIT_CODE, HostLease
from nanotasks.errors import DependencyDownError
from nanotasks.runtimes import host_lease
from nanotasks.settings import Settings
from tests.installation import ROOT


class Clock:
    """Milliseconds since boot, as a test sets them, for the host and for the agent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000
        monkeypatch.setattr(host_lease, "boot_ms", lambda: self.now)
        monkeypatch.setattr("agent_runner.host_lease._boot_ms", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def shared(tmp_path: Path) -> Settings:
    """A lease of 20 s."""
    return Settings(
        data_dir=tmp_path / "data", shared_dir=str(tmp_path / "shared"), host_timeout_s=28, agent_lease_margin_s=8
    )


def file_of(settings: Settings) -> Path:
    return host_lease.folder(settings) / host_lease.NAME


def agent(settings: Settings) -> HostLease:
    """An agent whose start is decided now."""
    began = host_lease.begin(settings)
    assert began is not None
    found = HostLease.from_environment(host_lease.environment(settings, began, str(file_of(settings))))
    assert found is not None
    return found


def test_an_agent_goes_on_while_its_host_is_heard_of(shared: Settings, clock: Clock) -> None:
    """Sign after sign; and it ends when the last one began a lease ago, whenever it was written."""
    host_lease.renew(shared, clock.now)
    runner = agent(shared)
    for _ in range(5):
        clock.now += 19_999
        assert runner.what_is_wrong() is None
        host_lease.renew(shared, clock.now)
    clock.now += 20_000
    assert "was not heard of for 20000 ms (limit 20000 ms)" in str(runner.what_is_wrong())


def test_a_sign_counts_from_when_it_began(shared: Settings, clock: Clock) -> None:
    """It is committed later, and other hosts count from there; a writer that was held up extends nothing."""
    began = clock.now
    clock.now += 15_000
    host_lease.renew(shared, began)
    runner = agent(shared)
    clock.now += 5_000
    assert runner.what_is_wrong() is not None


def test_an_agent_of_before_a_silence_ends(shared: Settings, clock: Clock) -> None:
    """Signs came again before it looked: its session may have been elsewhere meanwhile. One started later goes on."""
    host_lease.renew(shared, clock.now)
    before = agent(shared)
    clock.now += 20_000
    host_lease.renew(shared, clock.now)
    assert "for a while after this agent was started" in str(before.what_is_wrong())
    assert agent(shared).what_is_wrong() is None


def test_a_start_that_was_held_up_ends(shared: Settings, clock: Clock) -> None:
    """Between its decision and the runtime its host was silent: it does not matter when the process began."""
    host_lease.renew(shared, clock.now)
    held_up = host_lease.begin(shared)
    assert held_up is not None
    clock.now += 60_000
    host_lease.renew(shared, clock.now)
    clock.now += 1
    late = HostLease(str(file_of(shared)), held_up, 20_000)
    assert late.what_is_wrong() is not None


def test_another_keeper_goes_on_with_the_row_of_signs(shared: Settings, clock: Clock) -> None:
    """Nothing is remembered but the file: a worker that restarts costs no agent."""
    host_lease.renew(shared, clock.now)
    since = file_of(shared).read_text().split()[0]
    clock.now += 10_000
    host_lease.renew(shared, clock.now)
    assert file_of(shared).read_text().split() == [since, str(clock.now)]


@pytest.mark.parametrize("content", ["", "1 2 3", "x y", "1000000 9999999"])
def test_a_file_that_says_nothing_begins_anew(shared: Settings, clock: Clock, content: str) -> None:
    """Also one of before the last boot, whose moments are ahead."""
    host_lease.renew(shared, clock.now)
    file_of(shared).write_text(content)
    clock.now += 5
    with pytest.raises(DependencyDownError, match="No agents are started"):
        host_lease.begin(shared)
    host_lease.renew(shared, clock.now)
    assert file_of(shared).read_text().split() == [str(clock.now)] * 2


def test_nothing_is_started_without_a_sign_of_life(shared: Settings, clock: Clock) -> None:
    """It would end at once."""
    with pytest.raises(DependencyDownError):
        host_lease.begin(shared)
    host_lease.renew(shared, clock.now)
    clock.now += 20_000
    with pytest.raises(DependencyDownError):
        host_lease.begin(shared)


def test_local_storage_has_no_lease(tmp_path: Path, clock: Clock) -> None:
    """A central database that is away for minutes costs no agent there."""
    assert host_lease.begin(Settings(data_dir=tmp_path)) is None
    assert HostLease.from_environment({}) is None


def test_a_file_that_cannot_be_read_becomes_old(shared: Settings, clock: Clock) -> None:
    """What was read last counts; before the first reading, the start itself."""
    host_lease.renew(shared, clock.now)
    runner, blind = agent(shared), HostLease("/nowhere", clock.now, 20_000)
    assert runner.what_is_wrong() is None
    file_of(shared).unlink()
    clock.now += 19_999
    assert (runner.what_is_wrong(), blind.what_is_wrong()) == (None, None)
    clock.now += 1
    assert None not in (runner.what_is_wrong(), blind.what_is_wrong())


_COMMIT = """
import sys
from agent_runner.inbound import Inbound
from agent_runner.outbound import Outbound
outbound = Outbound(sys.argv[1], Inbound(sys.argv[2], sys.argv[1]), create=True)
with outbound.transaction():
    outbound.set_state("before", "1")
open(sys.argv[3], "w").write(sys.argv[4])
with outbound.transaction():
    outbound.set_state("after", "1")
print("it went on")
"""


def test_nothing_is_committed_without_the_lease(tmp_path: Path) -> None:
    """The look comes before the commit, in every process that writes for the agent; the exit code says why."""
    lease = tmp_path / "lease"
    now = host_lease.boot_ms()
    lease.write_text(f"{now - 10_000} {now}")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "container"),
        "NANOTASKS_LEASE_FILE": str(lease),
        "NANOTASKS_LEASE_BEGAN_MS": str(now),
        "NANOTASKS_LEASE_MS": "20000",
    }
    outbound = tmp_path / "outbound.db"
    done = subprocess.run(
        [sys.executable, "-c", _COMMIT, str(outbound), str(tmp_path / "inbound.db"), str(lease), f"{now + 1} {now}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (EXIT_CODE, "")
    assert "host_lease_lost" in done.stderr
    with sqlite3.connect(outbound) as connection:
        assert connection.execute("SELECT key FROM session_state").fetchall() == [("before",)]
