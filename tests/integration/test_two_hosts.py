"""Two hosts: two data directories, one PostgreSQL, one Redis; accepted by one gateway, answered by both."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.clock import now_ms
from nanotasks.testing import PostgresServer, wait_for
from tests.installation import Installation, installation

CHATS = ["left", "right"]


@pytest.mark.postgres
@pytest.mark.slow
def test_messages_of_one_gateway_are_answered_on_both_hosts(
    tmp_path: Path, postgres: PostgresServer, redis_url: str
) -> None:
    """Agent groups are placed on both hosts, and each host answers for its own."""
    shared = {
        "redis_url": redis_url,
        "database_url": postgres.create_database(),
    }
    with (
        installation(tmp_path / "a", host_id="a", **shared) as a,
        installation(tmp_path / "b", host_id="b", **shared) as b,
    ):
        for host in (a, b):
            host.start("worker")
        a.start("beat")
        a.start("gateway")
        wait_for(lambda: hosts_up(a) == ["a", "b"], 30, what="both hosts")
        a.apply(
            groups=[{"folder": name, "name": name} for name in ("ann", "bob")],
            chats=[{"chat": f"terminal:{chat}", "unknown_sender_policy": "public"} for chat in CHATS],
            wirings=[
                {"chat": "terminal:left", "group": "ann", "engage_pattern": "."},
                {"chat": "terminal:right", "group": "bob", "engage_pattern": "."},
            ],
        )
        wait_for((a.directory / "run" / "terminal.sock").exists, 20, what="the gateway")
        for chat in CHATS:
            said = "".join(f"echo {chat} {number}\n" for number in range(3))
            replies = a.run("chat", "--chat", chat, given=said).stdout.splitlines()
            assert replies == [f"{chat} {number}" for number in range(3)]
        assert placed(a) == {"a", "b"}
        for host in (a, b):
            assert len(list((host.settings.data_dir / "sessions").glob("*/*/host/inbound.db"))) == 1


@pytest.mark.postgres
def test_a_second_machine_with_the_same_host_id_is_refused(
    tmp_path: Path, postgres: PostgresServer, redis_url: str
) -> None:
    """The two would share one queue, and each write half of the messages to its own disk."""
    shared = {"redis_url": redis_url, "database_url": postgres.create_database(), "host_id": "kitchen"}
    with installation(tmp_path / "a", **shared) as first:
        first.start("worker")
        wait_for(lambda: '"worker_ready"' in first.log("worker"), 30, what="the first worker")
        refused = Installation(tmp_path / "b", **shared).run("worker", code=4)
        assert "Another data directory is at work as the host kitchen" in refused.stderr
        assert "NANOTASKS_HOST_ID" in refused.stderr
        assert hosts_up(first) == ["kitchen"]


def test_a_worker_ends_when_another_machine_has_taken_its_host_over(tmp_path: Path, redis_url: str) -> None:
    """As after it was cut off for a while: the other one has the files now."""
    with installation(tmp_path, redis_url=redis_url, host_id="kitchen", host_heartbeat_s="0.2") as here:
        worker = here.start("worker")
        wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the worker")
        with here.central() as db, db.write() as session:
            session.execute(update(Host).values(place="another place", heartbeat_at=now_ms()))
        assert worker.wait(30) == 0
        assert '"host_refused"' in here.log("worker")


def hosts_up(here: Installation) -> list[str]:
    with here.central() as db, db.read() as session:
        return sorted(session.scalars(select(Host.id).where(Host.state == "up")))


def placed(here: Installation) -> set[str | None]:
    with here.central() as db, db.read() as session:
        return set(session.scalars(select(AgentGroup.host_id)))
