"""Flower over real HTTP: who may look, and that a delivery's retries stand on one line with their reason."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanotasks.clock import iso, now_ms
from nanotasks.testing import free_port, wait_for
from tests.faults.platform import Answer, Platform
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


def test_a_refused_reply_is_followed_from_flower_to_its_row_and_back(tmp_path: Path, redis_url: str) -> None:
    """One refused with 429 and one with 401 are found by Flower's task id, tried again, and given up."""
    with (
        Platform().open() as platform,
        installation(
            tmp_path,
            redis_url=redis_url,
            flower_port=str(free_port()),
            webhook_secret="a secret",
            webhook_outbound_url=platform.url,
            delivery_backoff_s="0.2",
        ) as here,
    ):
        here.apply(
            groups=[{"folder": "andy", "name": "Andy"}],
            chats=[
                {"chat": f"webhook:{name}", "unknown_sender_policy": "public", "is_group": False}
                for name in ("slow", "barred")
            ],
            wirings=[
                {"chat": f"webhook:{name}", "group": "andy", "engage_pattern": "."} for name in ("slow", "barred")
            ],
        )
        platform.script("first", Answer("refuse", 429), Answer("refuse", 429, retry_after_s=3600))
        platform.script("second", *[Answer("refuse", 401)] * 100)
        here.start("flower")
        wait_for(lambda: httpx_ok(here), 30, what="Flower answers")
        here.start("worker")
        wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the worker")

        def listed(*words: str) -> list[dict[str, Any]]:
            return list(json.loads(here.run(*words, "--json").stdout))

        # One after the other: a task that delivers may serve several sessions, and would be the first attempt of both.
        for number, (chat, text) in enumerate((("slow", "echo first"), ("barred", "echo second")), 1):
            sent = {"id": f"m-{chat}", "channel_type": "webhook", "platform_id": chat, "sender_id": "ann", "text": text}
            here.say([sent])
            wait_for(lambda number=number: len(listed("retry", "list")) == number, 20, what=f"the refusal of {text}")  # type: ignore[misc]

        def shown(name: str) -> dict[str, Any]:
            return dict(json.loads(here.run("retry", "show", name, "--json").stdout))

        def tried(number: int) -> dict[str, dict[str, Any]] | None:
            found = {row["class"]: row for row in listed("retry", "list") if row["attempt"] > number}
            return found if len(found) == 2 else None

        found = wait_for(lambda: tried(2), 30, what="two tries of each")
        slow, barred = found["rate_limited"], found["destination"]
        assert slow["next_at"] > iso(now_ms() + 600_000)

        # From the row to Flower, and from Flower to the row.
        for row, status in ((slow["id"], "429"), (barred["id"], "401")):
            attempts = shown(row)["attempts"]
            assert len(attempts) >= 2 and all(status in one["error"] for one in attempts[:2])
            for task_id in {one["task_id"] for one in attempts}:
                task = httpx.get(f"http://127.0.0.1:{here.settings.flower_port}/api/task/info/{task_id}")
                assert task.raise_for_status().json()["name"] in {"deliver.session", "deliver.attempt"}
                assert shown(task_id)["id"] == row
                assert json.loads(here.run("deliveries", "show", task_id, "--json").stdout)["id"] == row

        # Tried again at once, although its time is much later; it arrives.
        here.run("retry", "now", slow["id"])
        wait_for(lambda: [one for one in platform.of_chats({"slow"}) if one.taken], 30, what="the first reply")

        # Given up, and the platform hears of it no more; then tried again by hand.
        here.run("retry", "cancel", barred["id"])
        count = len(platform.of_chats({"barred"}))
        assert [row["id"] for row in listed("dead", "list", "--kind", "delivery")] == [barred["id"]]
        here.run("retry", "now", barred["id"])
        wait_for(lambda: len(platform.of_chats({"barred"})) > count, 30, what="another try")
        # What is being sent waits for nothing, so it cannot be cancelled before the refusal is its outcome.
        wait_for(lambda: listed("retry", "list"), 30, what="its refusal")
        here.run("retry", "cancel", "--all")
        wait_for(
            lambda: listed("dead", "list", "--kind", "delivery") and not listed("retry", "list"), 30, what="its end"
        )


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
