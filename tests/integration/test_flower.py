"""Flower over real HTTP: who may look, and that a delivery's retries stand on one line with their reason."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanotasks.testing import free_port, wait_for
from tests.installation import Installation, installation


@pytest.fixture
def here(tmp_path: Path, redis_url: str) -> Iterator[Installation]:
    with installation(
        tmp_path,
        redis_url=redis_url,
        flower_port=str(free_port()),
        delivery_backoff_s="0.2",
        delivery_backoff_max_s="0.4",
    ) as made:
        yield made


def tasks(here: Installation, name: str) -> dict[str, dict[str, Any]]:
    """Flower's view of the tasks of one name, by id."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{here.settings.flower_port}/api/tasks", params={"taskname": name})
    except httpx.TransportError:
        return {}
    return dict(answer.raise_for_status().json())


def test_flower_shows_a_deliverys_retries_on_one_line_with_their_reason(here: Installation) -> None:
    """One task id per delivery: RETRY and a reason while it fails, SUCCESS with the count of retries at its end."""
    here.apply(
        groups=[{"folder": "andy", "name": "Andy"}],
        chats=[{"chat": "file:room", "unknown_sender_policy": "public"}],
        wirings=[{"chat": "file:room", "group": "andy", "engage_pattern": "."}],
    )
    here.start("flower")
    wait_for(lambda: httpx_ok(here), 30, what="Flower answers")
    here.start("worker")
    wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the worker")
    blocked = here.settings.data_dir / "channels" / "file" / "room.jsonl"
    blocked.mkdir(parents=True)
    here.say([{"id": "1", "platform_id": "room", "sender_id": "ann", "text": "echo hello"}])

    def retried() -> dict[str, Any] | None:
        found = tasks(here, "deliver.attempt").values()
        return next((task for task in found if task["state"] == "RETRY" and task["retries"] >= 2), None)

    task = wait_for(retried, 30, what="a second retry in Flower")
    assert "destination" in task["exception"] and "room.jsonl" in task["exception"]
    assert "hello" not in str(task)
    blocked.rmdir()
    wait_for(lambda: here.heard("room") == ["hello"], 30, what="the delivery")
    ended = wait_for(
        lambda: (now := tasks(here, "deliver.attempt")[task["uuid"]])["state"] == "SUCCESS" and now, what="its end"
    )
    assert ended["retries"] >= 2
    assert len(tasks(here, "deliver.attempt")) == 1
    assert tasks(here, "intake.route") and tasks(here, "wake.session") and tasks(here, "deliver.session")


def httpx_ok(here: Installation) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{here.settings.flower_port}/healthcheck").is_success
    except httpx.TransportError:
        return False


def test_flower_refuses_to_be_open_to_strangers(tmp_path: Path, redis_url: str) -> None:
    """Beyond loopback it needs a user name and a password, and says so."""
    here = Installation(tmp_path, redis_url=redis_url, flower_host="0.0.0.0", flower_port=str(free_port()))
    refused = here.run("flower", code=78)
    assert "NANOTASKS_FLOWER_PASSWORD" in refused.stderr


def test_a_port_in_use_is_explained(tmp_path: Path, redis_url: str) -> None:
    """The error names the port and the setting, as the gateway's does."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        refused = Installation(tmp_path, redis_url=redis_url, flower_port=str(port)).run("flower", code=4)
    assert f"Port {port} on 127.0.0.1 is in use" in refused.stderr and "NANOTASKS_FLOWER_PORT" in refused.stderr


def test_flower_asks_for_the_password_and_changes_nothing(tmp_path: Path, redis_url: str) -> None:
    """With a password everything needs it; even with it nothing can be revoked or shut down."""
    here = Installation(
        tmp_path,
        redis_url=redis_url,
        flower_host="0.0.0.0",
        flower_port=str(free_port()),
        flower_user="ann",
        flower_password="secret",
    )
    try:
        here.start("flower")
        wait_for(lambda: httpx_ok(here), 30, what="Flower answers")
        url = f"http://127.0.0.1:{here.settings.flower_port}"
        assert httpx.get(f"{url}/api/tasks").status_code == 401
        assert httpx.get(f"{url}/tasks").status_code == 401
        assert httpx.get(f"{url}/api/tasks", auth=("ann", "secret")).status_code == 200
        assert httpx.post(f"{url}/api/task/revoke/x", auth=("ann", "secret")).status_code == 403
    finally:
        here.stop()
