"""Workers and beats as processes: they consume, tick once, notice deafness, drain, and survive kill -9."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from nanotasks.celery_app import create
from nanotasks.central import Database
from nanotasks.central.events import ChatCounter, InboundEvent
from nanotasks.central.hosts import Host
from nanotasks.clock import now_ms
from nanotasks.ops import redis_server
from nanotasks.signals import client_url
from nanotasks.testing import free_port, wait_for
from tests.installation import Installation, children, installation, named, wait_until_gone
from tests.unit.watch.reading import figures_of


@pytest.fixture
def here(tmp_path: Path, redis_url: str) -> Iterator[Installation]:
    with installation(
        tmp_path,
        redis_url=redis_url,
        sweep_signals_period_s="0.5",
        sweep_figures_period_s="1",
        canary_period_s="0.2",
        canary_silence_s="1.5",
    ) as made:
        yield made


def ready(here: Installation, times: int = 1) -> None:
    wait_for(lambda: here.log("worker").count('"worker_ready"') >= times, 30, what="a worker is ready")


def test_a_stopped_worker_exits_0_and_leaves_nothing(here: Installation) -> None:
    """SIGTERM ends a worker, its pool and its keeper; the exit code says that all is well."""
    worker = here.start("worker")
    ready(here)
    family = children(worker.pid)
    assert len(named(family, "worker")) == 1 + here.settings.worker_concurrency
    assert len(named(family, "keeper")) == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    wait_until_gone(family)


def two_chats(here: Installation) -> None:
    """Two chats of one agent, in each of which something was said."""
    here.apply(
        groups=[{"folder": "andy", "name": "Andy"}],
        chats=[{"chat": f"file:c{number}", "unknown_sender_policy": "public"} for number in range(2)],
        wirings=[{"chat": f"file:c{number}", "group": "andy", "engage_pattern": "."} for number in range(2)],
    )
    here.say([{"id": f"m{n}", "platform_id": f"c{n}", "sender_id": "ann", "text": f"echo {n}"} for n in range(2)])


def test_a_worker_takes_up_what_a_dead_one_left(tmp_path: Path, redis_url: str) -> None:
    """The message that stood for two chats died with a worker; the sweeps are far off, and nobody rings again."""
    with installation(tmp_path, redis_url=redis_url, sweep_signals_period_s="600") as here:
        two_chats(here)
        client = redis.Redis.from_url(client_url(here.settings.redis_url))
        assert client.delete("inbound") == 1
        client.close()
        here.start("worker")
        for chat in ("c0", "c1"):
            wait_for(lambda chat=chat: here.heard(chat), 30, what=f"the answer in {chat}")  # type: ignore[misc]


def test_a_worker_stands_in_for_a_beat(here: Installation) -> None:
    """Every signal is lost and no beat runs: the keeper sends the ticks, and says so once."""
    here.start("worker")
    ready(here)
    redis_url = here.environment["NANOTASKS_REDIS_URL"]
    here.environment["NANOTASKS_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"  # whatever is said rings nobody
    two_chats(here)
    here.environment["NANOTASKS_REDIS_URL"] = redis_url
    wait_for(lambda: here.heard("c0") == ["0"] and here.heard("c1") == ["1"], 30, what="the answers")
    assert here.log("worker").count('"beat_is_silent"') == 1


def test_a_worker_makes_its_host_known(here: Installation) -> None:
    """The host's row appears with its first worker, which consumes the host's queue."""
    here.start("worker")
    with here.central() as db:

        def known() -> list[str]:
            with db.read() as session:
                return [host.id for host in session.query(Host) if host.state == "up"]

        wait_for(lambda: known() == ["here"], what="the host's row")
    ready(here)
    queues = create(here.settings).control.inspect(timeout=2).active_queues()["worker-1@here"]
    assert {queue["name"] for queue in queues} == {"inbound", "default", "host.here", "canary.worker-1@here"}


def test_a_second_worker_takes_the_next_name_and_waits_to_keep_the_host(here: Installation) -> None:
    """Several workers of a host are normal; one keeps the host, and another takes over when it dies."""
    first, second = here.start("worker"), here.start("worker")
    ready(here, 2)
    assert all(f'"worker": "worker-{number}@here"' in here.log("worker") for number in (1, 2))
    wait_for(lambda: here.log("worker").count("keeping_host") == 1, what="one keeper at work")
    keepers = {worker: named(children(worker.pid), "keeper")[0] for worker in (first, second)}
    at_work = next(w for w in keepers if holds_lock(keepers[w], here.settings.data_dir / "keeper.lock"))
    os.killpg(at_work.pid, signal.SIGKILL)
    wait_for(lambda: here.log("worker").count("keeping_host") == 2, 5, what="the other one takes over")


def holds_lock(pid: int, path: Path) -> bool:
    inode = str(path.stat().st_ino)
    return any(
        words[1] == "FLOCK" and words[4] == str(pid) and words[5].endswith(f":{inode}")
        for words in (line.split() for line in Path("/proc/locks").read_text().splitlines())
    )


def test_a_killed_pool_child_and_a_killed_worker_are_replaced(here: Installation) -> None:
    """kill -9 of a child or of the Celery process itself costs a restart."""
    worker = here.start("worker")
    ready(here)
    pool = [pid for main in named(children(worker.pid), "worker") for pid in children(main)]
    os.kill(pool[0], signal.SIGKILL)
    wait_until_gone([pool[0]])
    main = next(pid for pid in named(children(worker.pid), "worker") if children(pid))
    wait_for(lambda: len(children(main)) == here.settings.worker_concurrency, what="the pool is whole again")
    os.kill(main, signal.SIGKILL)
    wait_until_gone([main, *pool])
    ready(here, 2)


def test_a_deaf_worker_ends_and_is_started_again(here: Installation) -> None:
    """A worker that consumes no more although Redis answers notices by its own canary."""
    here.start("worker")
    ready(here)
    app = create(here.settings)
    for queue in ("inbound", "default", "host.here", "canary.worker-1@here"):
        app.control.cancel_consumer(queue, reply=True, timeout=2)
    wait_for(lambda: "worker_consumes_no_more" in here.log("worker"), 15, what="the canary is missed")
    ready(here, 2)


def test_the_metrics_know_the_worker_and_what_a_sweep_rang(here: Installation) -> None:
    """A message whose signal was lost is rung by a sweep, which counts it; the canary says that the worker hears."""
    with here.central() as db:
        lost(db)
        here.start("worker")
        here.start("beat")
        ready(here)
        wait_for(lambda: figures_of(db)["resignals_total", ("route",)] >= 1, 20, what="the sweep rings")
        wait_for(lambda: ("canary_age_seconds", ("worker-1@here",)) in figures_of(db), what="the canary is heard")
        wait_for(lambda: ("tick_age_seconds", ("sweep.figures",)) in figures_of(db), 20, what="the figures are counted")
        wait_for(lambda: figures_of(db)["oldest_due_seconds", ("intake",)] == 0, what="the message is routed")
        assert figures_of(db)["hosts", ("up",)] == 1


def lost(db: Database) -> None:
    """A message that was accepted a while ago, of which nobody was told."""
    with db.write() as session:
        session.add(ChatCounter(channel_type="file", platform_id="room", last_order=1))
        session.add(
            InboundEvent(
                id="ev-lost",
                channel_type="file",
                platform_id="room",
                platform_message_id="m",
                digest="",
                accept_order=1,
                kind="chat",
                timestamp="",
                content="{}",
                received_at=now_ms() - 60_000,
            )
        )


def test_two_beats_are_one(here: Installation) -> None:
    """Ticks of two beats are claimed: their work is done once per period."""
    here.start("worker")
    here.start("beat")
    here.start("beat")
    ready(here)
    client = redis.Redis.from_url(client_url(here.settings.redis_url))
    with here.central() as db:

        def claimed_at() -> int:
            with db.read() as session:
                return (
                    session.connection()
                    .exec_driver_sql("SELECT coalesce(max(claimed_at), 0) FROM ticks WHERE name = 'sweep.signals'")
                    .scalar_one()
                )

        seen = [wait_for(claimed_at, 20, what="a first tick")]
        while len(seen) < 6:
            seen.append(wait_for(lambda: (now := claimed_at()) > seen[-1] and now, 10, what="the next tick"))
    client.close()
    pauses = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert min(pauses) >= 0.8 * here.settings.sweep_signals_period_s * 1000


def test_a_worker_refuses_a_database_without_a_schema(tmp_path: Path, redis_url: str) -> None:
    """It says what to do, and exits as for a configuration that cannot be used."""
    done = Installation(tmp_path, redis_url=redis_url).run("worker", code=78)
    assert "nanotasks db upgrade" in done.stderr


def test_a_worker_that_loses_redis_says_so_in_a_line(tmp_path: Path) -> None:
    """No traceback and no bare line, neither while Redis is away nor at the end."""
    socket_file = tmp_path / "r.sock"
    server = redis_server.start(socket_file, tmp_path / "redis.log")
    wait_for(socket_file.exists, what="Redis")
    with installation(tmp_path, redis_url=f"redis+socket://{socket_file}", sweep_signals_period_s="0.5") as here:
        worker = here.start("worker")
        here.start("beat")
        ready(here)
        server.kill()
        server.wait()
        wait_for(lambda: "tick_not_sent" in here.log("beat"), 30, what="beat misses Redis")
        wait_for(lambda: "broker lost" in here.log("worker"), 30, what="the worker misses Redis")
        wait_for(lambda: "Cannot connect" in here.log("worker"), 30, what="the worker tries again")
        worker.send_signal(signal.SIGTERM)
        worker.wait(40)
    for line in (here.log("worker") + here.log("beat")).splitlines():
        assert json.loads(line), line
        assert "traceback object" not in line and "Traceback" not in line
