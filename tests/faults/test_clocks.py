"""Two hosts whose clocks are an hour apart: what one writes and the other reads is compared on the database's clock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from nanotasks.central.deliveries import Delivery
from nanotasks.central.hosts import Host
from nanotasks.testing import PostgresServer, wait_for
from tests.installation import Installation, installation

pytestmark = [pytest.mark.faults, pytest.mark.postgres]

QUICK = {
    "sweep_signals_period_s": "0.5",
    "sweep_due_period_s": "0.5",
    "sweep_containers_period_s": "0.5",
    "sweep_hosts_period_s": "0.5",
    "resignal_after_s": "1",
    "host_heartbeat_s": "0.5",
    "delivery_backoff_s": "0.3",
    "delivery_backoff_max_s": "1",
    "wake_backoff_s": "0.3",
}


@pytest.fixture(scope="module")
def shifted_clock(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that shifts a process's clock; without a compiler the test is skipped, or fails where it must not."""
    compiler = shutil.which("cc")
    if compiler is None:
        if os.environ.get("NANOTASKS_TEST_REQUIRE_CC") == "1":
            pytest.fail("No C compiler (Debian: gcc and libc6-dev).")
        pytest.skip("No C compiler (Debian: gcc and libc6-dev).")
    library = tmp_path_factory.mktemp("clock") / "shifted_clock.so"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


@contextmanager
def two_hosts(
    directory: Path, database_url: str, redis_url: str, shifted_clock: str, shift_s: int
) -> Iterator[tuple[Installation, Installation]]:
    """The hosts `true` and `shifted`, whose wall clock differs, with a worker each; one beat and one gateway."""
    shared = {"redis_url": redis_url, "database_url": database_url, **QUICK}
    with (
        installation(directory / "a", host_id="true", **shared) as true,
        installation(directory / "b", host_id="shifted", **shared) as shifted,
    ):
        shifted.environment |= {"LD_PRELOAD": shifted_clock, "CLOCK_SHIFT_S": str(shift_s)}
        for host in (true, shifted):
            host.start("worker")
        true.start("beat")
        wait_for(lambda: hosts_up(true) == ["shifted", "true"], 30, what="both hosts")
        for host in (true, shifted):
            wait_for(lambda host=host: '"worker_ready"' in host.log("worker"), 30, what="a worker")  # type: ignore[misc]
        yield true, shifted


@pytest.mark.parametrize("shift_s", [3600, -3600], ids=["an hour ahead", "an hour behind"])
def test_clocks_are_an_hour_apart(
    tmp_path: Path, postgres: PostgresServer, migrated_postgres: str, redis_url: str, shifted_clock: str, shift_s: int
) -> None:
    """Both hosts answer in order and once, a reply that failed is tried again in time, and both count as up."""
    url = postgres.create_database(migrated_postgres)
    with two_hosts(tmp_path, url, redis_url, shifted_clock, shift_s) as (true, shifted):
        for host in ("true", "shifted"):
            true.run("groups", "create", host.capitalize(), "--host", host)
        true.apply(
            chats=[{"chat": f"file:{name}", "unknown_sender_policy": "public"} for name in ("true", "shifted")],
            wirings=[{"chat": f"file:{name}", "group": name, "engage_pattern": "."} for name in ("true", "shifted")],
        )
        blocked = [
            host.settings.data_dir / "channels" / "file" / f"{host.settings.host_id}.jsonl" for host in (true, shifted)
        ]
        for path in blocked:
            path.mkdir(parents=True)
        for number in range(4):
            true.say(
                [
                    {"id": f"{chat}-{number}", "platform_id": chat, "sender_id": "ann", "text": f"echo {chat} {number}"}
                    for chat in ("true", "shifted")
                ]
            )
        wait_for(lambda: len(retried(true)) == 2, 30, what="a second try on each host")
        for path in blocked:
            path.rmdir()
        for host in (true, shifted):
            name = host.settings.host_id
            expected = [f"{name} {number}" for number in range(4)]
            wait_for(lambda host=host, name=name: len(host.heard(name)) >= 4, 15, what=f"the answers of {name}")  # type: ignore[misc]
            assert host.heard(name) == expected
        assert hosts_up(true) == ["shifted", "true"]
        assert json.loads(true.run("retry", "list", "--json").stdout) == []


def hosts_up(here: Installation) -> list[str]:
    with here.central() as db, db.read() as session:
        return sorted(session.scalars(select(Host.id).where(Host.state == "up")))


def retried(here: Installation) -> set[str]:
    """The hosts on which a delivery was tried at least three times."""
    with here.central() as db, db.read() as session:
        return {str(host) for host in session.scalars(select(Delivery.host_id).where(Delivery.attempts >= 3))}
