"""The real runner, woken for a real row, in each runtime: what the host prepares is what the runner needs."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from agent_runner.host_lease import EXIT_CODE
from nanotasks.central import Database
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.runtimes import host_lease
from nanotasks.runtimes.contract import Runtime
from nanotasks.runtimes.docker import DockerRuntime
from nanotasks.runtimes.docker_client import LABEL, remove
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import NewRow
from nanotasks.testing import wait_for
from nanotasks.wake import instances, service
from nanotasks.wake.due import announced
from nanotasks.wake.here import Here, State
from tests.scene import HOST, Stage


@dataclass
class Home:
    """One session of one agent, woken in a runtime of choice."""

    stage: Stage
    runtimes: dict[str, Runtime]
    folder: SessionFolder
    session_id: str = "sess-s1"

    def here(self, name: str) -> Here:
        return Here(self.stage.db, self.stage.settings, self.runtimes[name], lambda named: self.runtimes[named])

    def say(self, text: str, message_id: str) -> None:
        content = json.dumps({"text": text, "sender": "Ada", "senderId": "u1"})
        row = NewRow(message_id, "chat", content, now_ms(), platform_id="c1", channel_type="scripted")
        with open_inbound(self.folder) as inbound, announced(self.stage.db, inbound, self.session_id):
            inbound.insert([row])

    def answers(self) -> list[str]:
        database = sqlite3.connect(f"file:{self.folder.outbound_db}?mode=ro", uri=True)
        try:
            return [json.loads(content)["text"] for (content,) in database.execute("SELECT content FROM messages_out")]
        finally:
            database.close()

    def answered(self, count: int, runtime: str) -> None:
        wait_for(
            lambda: len(self.answers()) >= count,
            timeout_s=20,
            what=f"answer {count}; log: {self.runtimes[runtime].last_log(self.session_id)}",
        )


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def name(request: pytest.FixtureRequest) -> str:
    """A runtime."""
    return str(request.param)


@pytest.fixture
def home(request: pytest.FixtureRequest, sqlite_central: Database, tmp_path: Path, name: str) -> Iterator[Home]:
    """An agent `andy` with one session in one chat."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    install = f"t{uuid.uuid4().hex[:7]}"
    runtimes: dict[str, Runtime] = {"process": ProcessRuntime(stage.settings.data_dir)}
    client: Any = None
    if name == "docker":
        stage.settings = replace(stage.settings, image=request.getfixturevalue("agent_image"), container_network="none")
        client = request.getfixturevalue("docker_client")
        runtimes["docker"] = DockerRuntime(install, HOST)
    agent, chat = stage.agent(), stage.chat("c1")
    stage.allow(agent, "family", "channel", chat)
    made = Home(stage, runtimes, stage.session("s1", agent, chat).folder)
    yield made
    for runtime in runtimes.values():
        for running in runtime.list():
            runtime.stop(running.session_id, 0, "the test is over")
        runtime.close()
    if client is not None:
        for left in client.containers(all=True, filters={"label": f"{LABEL}.install={install}"}):
            remove(client, left["Id"])


def test_a_message_is_answered(home: Home, name: str) -> None:
    """A due row, a wake, an answer; the warm agent answers the next one; a stop ends it cleanly."""
    home.say("hello", "m1")
    assert service.wake(home.here(name), home.session_id).state is State.STARTED
    home.answered(1, name)
    home.say("again", "m2")
    assert service.wake(home.here(name), home.session_id).state is State.RUNNING
    home.answered(2, name)
    assert service.stop(home.here(name), home.session_id, "test").state is State.STOPPED
    assert home.runtimes[name].list() == []


def test_the_next_agent_goes_on(home: Home, name: str) -> None:
    """Stopped and woken again, the session answers in the files it had."""
    home.say("hello", "m1")
    service.wake(home.here(name), home.session_id)
    home.answered(1, name)
    service.stop(home.here(name), home.session_id, "test")
    home.say("again", "m2")
    assert service.wake(home.here(name), home.session_id).state is State.STARTED
    home.answered(2, name)


def test_an_agent_on_shared_storage_ends_with_its_hosts_lease(home: Home, name: str) -> None:
    """It answers while its host is heard of, and ends by itself when it is not; nothing starts meanwhile."""
    settings = replace(
        home.stage.settings,
        shared_dir=str(home.stage.settings.data_dir),
        host_heartbeat_s=1.0,
        host_timeout_s=6.0,
        agent_lease_margin_s=2.0,
    )
    home.stage.settings = settings
    here = home.here(name)
    home.say("hello", "m1")
    assert service.wake(here, home.session_id).state is State.FAILED
    host_lease.renew(settings, host_lease.boot_ms())
    _forget_the_failure(home)
    began = time.monotonic()
    assert service.wake(here, home.session_id).state is State.STARTED
    home.answered(1, name)
    wait_for(lambda: here.runtime.find(home.session_id) is None, 20, every_s=0.1, what="the end of the agent")
    assert 3.0 <= time.monotonic() - began <= 7.0
    live = instances.read(here, home.session_id)
    assert live is not None and live.live is not None and live.live.fenced
    ended = here.runtime.last_exit(home.session_id, live.live.id)
    assert ended is not None and ended.code == EXIT_CODE
    assert "host_lease_lost" in here.runtime.last_log(home.session_id)


def _forget_the_failure(home: Home) -> None:
    with home.stage.db.write() as session:
        session.execute(update(AgentSession).values(wake_retry_at=None))


def test_an_agent_cannot_spoil_its_next_start(home: Home, name: str) -> None:
    """Whatever it puts in the place of what the host prepares is replaced."""
    home.say("hello", "m1")
    service.wake(home.here(name), home.session_id)
    home.answered(1, name)
    service.stop(home.here(name), home.session_id, "test")
    group = home.stage.settings.data_dir / "groups" / "andy"
    for spoiled in (group / "container.json", group / "CLAUDE.md", home.folder.workspace / "agent"):
        if spoiled.is_file():
            spoiled.unlink()
        elif spoiled.is_dir():
            spoiled.rmdir()
    (group / "container.json").mkdir()
    (group / "CLAUDE.md").symlink_to("/etc/hostname")
    (home.folder.workspace / "agent").symlink_to("/tmp")
    before = Path("/etc/hostname").read_text()
    home.say("again", "m2")
    assert service.wake(home.here(name), home.session_id).state is State.STARTED
    home.answered(2, name)
    assert Path("/etc/hostname").read_text() == before


@pytest.mark.docker
@pytest.mark.parametrize("name", ["docker"])
def test_a_session_changes_runtimes(home: Home) -> None:
    """What a child process of the host's user wrote, the container's user can go on with, and the other way round."""
    for number, runtime in enumerate(["process", "docker", "process", "docker"], start=1):
        home.say(f"message {number}", f"m{number}")
        assert service.wake(home.here(runtime), home.session_id).state is State.STARTED
        home.answered(number, runtime)
        assert service.stop(home.here(runtime), home.session_id, "test").state is State.STOPPED


@pytest.mark.docker
@pytest.mark.parametrize("name", ["docker"])
def test_an_agent_of_another_runtime_is_respected(home: Home) -> None:
    """After the setting changed, a session's live agent is found in the runtime where it was started."""
    home.say("hello", "m1")
    service.wake(home.here("docker"), home.session_id)
    home.answered(1, "docker")
    home.say("again", "m2")
    assert service.wake(home.here("process"), home.session_id).state is State.RUNNING
    home.answered(2, "docker")
    assert home.runtimes["process"].list() == []
    service.stop(home.here("process"), home.session_id, "test")
    assert home.runtimes["docker"].list() == []


@pytest.mark.docker
@pytest.mark.parametrize("name", ["docker"])
def test_the_agent_sees_its_folders_as_documented(home: Home) -> None:
    """The layout inside: what is read-only is, what is the agent's is writable, links lead to the host's files."""
    home.say("hello", "m1")
    service.wake(home.here("docker"), home.session_id)
    home.answered(1, "docker")
    running = home.runtimes["docker"].find(home.session_id)
    assert running is not None
    assert running.pid is not None
    mounts = {}
    for line in Path(f"/proc/{running.pid}/mounts").read_text().splitlines():
        _device, target, _kind, options, *_ = line.split()
        mounts[target] = options.split(",")[0]
    assert {target: mounts.get(target) for target in EXPECTED} == EXPECTED
    inside = Path(f"/proc/{running.pid}/root")
    assert os.readlink(inside / "workspace" / "inbound.db") == "../host/inbound.db"  # noqa: PTH115
    assert json.loads((inside / "workspace/agent/container.json").read_text())["provider"] == "demo"


EXPECTED = {
    "/": "ro",
    "/workspace": "rw",
    "/host": "ro",
    "/workspace/agent": "rw",
    "/workspace/agent/container.json": "ro",
    "/workspace/agent/CLAUDE.md": "ro",
    "/workspace/agent/.claude-fragments": "ro",
    "/app/CLAUDE.md": "ro",
    "/app/skills": "ro",
    "/home/node": "rw",
    "/home/node/.claude": "rw",
    "/tmp": "rw",
}
