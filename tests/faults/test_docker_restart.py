"""A whole installation with agents in containers, while the Docker daemon goes away and comes back."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nanotasks.central.chats import Chat
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.runtimes.docker_client import LABEL, remove
from nanotasks.testing import wait_for
from tests.faults.docker_proxy import docker_proxy
from tests.faults.private_dockerd import private_daemon
from tests.installation import Installation, installation

pytestmark = [
    pytest.mark.docker,
    # The SDK leaves a socket that could not connect to the collector.
    pytest.mark.filterwarnings("ignore:.*unclosed <socket:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

CHATS = [f"room{number}" for number in range(3)]


@contextmanager
def _installation(directory: Path, redis_url: str, image: str, docker_host: str) -> Iterator[Installation]:
    """A worker and a beat with short periods, whose Docker daemon is at `docker_host`."""
    with installation(
        directory,
        redis_url=redis_url,
        runtime="docker",
        image=image,
        container_network="none",
        container_start_timeout_s="3",
        container_stop_grace_s="1",
        wake_backoff_s="0.3",
        wake_backoff_max_s="1",
        wake_failures_told="1000",
        inbound_backoff_s="0.2",
        sweep_signals_period_s="1",
        sweep_due_period_s="1",
        sweep_containers_period_s="1",
        resignal_after_s="1",
    ) as here:
        here.environment["DOCKER_HOST"] = docker_host
        here.apply(
            groups=[{"folder": "andy", "name": "Andy"}],
            chats=[{"chat": f"file:{chat}", "unknown_sender_policy": "public"} for chat in CHATS],
            wirings=[{"chat": f"file:{chat}", "group": "andy", "engage_pattern": "."} for chat in CHATS],
        )
        here.start("worker")
        here.start("beat")
        wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the worker")
        yield here


def _say(here: Installation, turn: int, chats: list[str]) -> None:
    here.say(
        [
            {"id": f"{chat}-{turn}", "platform_id": chat, "sender_id": "ann", "text": f"echo {chat} {turn}"}
            for chat in chats
        ]
    )


def _answered(here: Installation, turns: dict[str, list[int]], timeout_s: float = 60.0) -> None:
    """Every message was answered, once and in order."""
    expected = {chat: [f"{chat} {turn}" for turn in said] for chat, said in turns.items()}
    total = sum(map(len, expected.values()))
    wait_for(lambda: sum(here.counts(list(turns)).values()) >= total, timeout_s, every_s=0.1, what="all answers")
    assert {chat: here.heard(chat) for chat in turns} == expected
    assert set(Counter(here.counts(list(turns))).values()) == {1}


def _instances(here: Installation) -> list[Instance]:
    with here.central() as db, db.read() as session:
        return list(session.scalars(select(Instance)))


def _ours(client: Any, here: Installation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"{LABEL}.install={here.settings.install_id}"}
    )
    return found


@pytest.mark.slow
def test_while_the_daemon_is_away_work_waits_or_goes_on(
    tmp_path: Path, redis_url: str, agent_image: str, docker_client: Any
) -> None:
    """A warm agent answers meanwhile; one that died, and one that is needed for the first time, come afterwards."""
    warm, killed, cold = CHATS
    with docker_proxy() as proxy, _installation(tmp_path, redis_url, agent_image, proxy.url) as here:
        _say(here, 1, [warm, killed])
        _answered(here, {warm: [1], killed: [1]})
        first = {one.session_id: one.id for one in _instances(here)}
        with here.central() as db, db.read() as session:
            chats = {one.id: one.messaging_group_id for one in session.scalars(select(AgentSession))}
        assert len(set(chats.values())) == 2
        victim = next(one for one in _ours(docker_client, here) if _hears(here, one, killed))
        proxy.away()
        docker_client.kill(victim["Id"])
        _say(here, 2, CHATS)
        _answered(here, {warm: [1, 2]}, 20)
        wait_for(lambda: "Docker does not answer" in here.log("worker"), 20, what="a failed start")
        assert [one.id for one in _instances(here) if one.ended_at is None and one.id in first.values()]
        proxy.back()
        _answered(here, {warm: [1, 2], killed: [1, 2], cold: [2]})
        live = [one for one in _instances(here) if one.ended_at is None]
        assert len(live) == len({one.session_id for one in live}) == 3
        running = {one["Labels"][f"{LABEL}.instance"] for one in _ours(docker_client, here)}
        assert running == {one.id for one in live}


def _hears(here: Installation, container: dict[str, Any], chat: str) -> bool:
    """Whether a container is the agent of a chat."""
    with here.central() as db, db.read() as session:
        owner = session.get_one(AgentSession, container["Labels"][f"{LABEL}.session"])
        return session.get_one(Chat, owner.messaging_group_id).platform_id == chat


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGTERM, ()), (signal.SIGKILL, ()), (signal.SIGTERM, ("--live-restore",))],
    ids=["stopped", "killed", "live-restore"],
)
def test_a_restart_of_the_daemon_loses_and_doubles_nothing(
    tmp_path: Path,
    redis_url: str,
    agent_image: str,
    docker_client: Any,
    number: signal.Signals,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its containers end with it or outlive it; each message is answered once, before, meanwhile or afterwards."""
    with private_daemon(agent_image, docker_client, *options) as daemon:
        monkeypatch.setenv("DOCKER_HOST", daemon.url)
        with _installation(tmp_path, redis_url, agent_image, daemon.url) as here:
            _say(here, 1, CHATS)
            _answered(here, {chat: [1] for chat in CHATS})
            _say(here, 2, CHATS)
            daemon.end(number)
            _say(here, 3, CHATS)
            began = time.monotonic()
            assert daemon.start(), daemon.log()
            _say(here, 4, CHATS)
            _answered(here, {chat: [1, 2, 3, 4] for chat in CHATS}, 90)
            assert time.monotonic() - began < 90
            own = daemon.client()

            def one_each() -> bool:
                live = {one.id for one in _instances(here) if one.ended_at is None}
                running = {one["Labels"][f"{LABEL}.instance"] for one in _ours(own, here)}
                return running == live and len(live) == len(CHATS)

            wait_for(one_each, 30, what="one agent for each session, and no container besides")
            for left in _ours(own, here):
                remove(own, left["Id"])
            own.close()
