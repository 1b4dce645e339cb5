"""A Redis behind a network that drops, delays or forgets connections, or that is away for half a minute."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis

from nanotasks.ops import redis_server
from tests.faults.cases import conclude, run_traffic
from tests.faults.checker import Checker, Ledger, Said, lines
from tests.faults.platform import Platform
from tests.faults.redis_proxy import RedisProxy
from tests.faults.world import QUICK, World, wait

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def redis_server_socket() -> Iterator[Path]:
    """Where a private Redis listens."""
    with tempfile.TemporaryDirectory(prefix="nanotasks-redis-") as short:
        path = Path(short) / "redis.sock"
        process = redis_server.start(path, Path(short) / "redis.log")
        wait(path.exists, 20, "the socket of Redis")
        yield path
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def network(redis_server_socket: Path) -> Iterator[RedisProxy]:
    with RedisProxy(redis_server_socket).open() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def world(network: RedisProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """An installation that reaches its Redis through the proxy only."""
    with Platform().open() as platform:
        made = World(tmp_path_factory.mktemp("world"), platform, redis_url=network.url, **QUICK)
        with made.running() as up:
            yield up


def check(found: list[str]) -> None:
    assert not found, lines(found)


def for_some_seconds(seconds: float, begin: Callable[[], None], end: Callable[[], None]) -> Callable[[int], None]:
    """A disturbance that begins in the second round and ends by itself."""

    def disturb(turn: int) -> None:
        if turn == 1:
            begin()
            threading.Timer(seconds, end).start()

    return disturb


def test_connections_are_reset_all_the_time(world: World, network: RedisProxy) -> None:
    """Each round every connection breaks."""
    check(run_traffic(world, lambda _turn: network.cut()))


def test_redis_cannot_be_reached_for_some_seconds(world: World, network: RedisProxy) -> None:
    """What is accepted meanwhile is answered: the sweeps need no Redis to find it once there is one."""
    check(run_traffic(world, for_some_seconds(4.0, network.drop, network.mend)))


def test_the_network_is_slow(world: World, network: RedisProxy) -> None:
    """Each command takes 60 ms longer, and a task needs several of them."""
    network.delay(0.03)
    try:
        check(run_traffic(world, lambda _turn: None, chats=3, rounds=3))
    finally:
        network.mend()


def test_connections_are_half_open(world: World, network: RedisProxy) -> None:
    """Nobody is told that its connection is dead; time limits find out, and nothing waits for ever."""
    check(run_traffic(world, for_some_seconds(3.0, network.half_open, network.mend)))


def test_clients_are_paused(world: World, redis_server_socket: Path) -> None:
    """`CLIENT PAUSE`: Redis takes commands and answers none for three seconds."""

    def pause(turn: int) -> None:
        if turn == 1:
            with closing(redis.Redis(unix_socket_path=str(redis_server_socket))) as client:
                client.execute_command("CLIENT", "PAUSE", "3000", "ALL")

    check(run_traffic(world, pause))


def test_redis_is_away_for_half_a_minute(world: World, network: RedisProxy) -> None:
    """The gateway takes messages all the time, at its usual speed; they are answered within seconds of the return."""
    checker, ledger = Checker(world.here.settings), Ledger()
    chats = world.chats(3)
    network.drop()
    slowest = 0.0
    try:
        for turn in range(10):
            for chat in chats:
                said = Said(f"{chat}-{turn}", chat, f"echo {chat} turn {turn}", (f"{chat} turn {turn}",))
                began = time.monotonic()
                world.say(chat, said.message_id, said.text)
                slowest = max(slowest, time.monotonic() - began)
                ledger.said.append(said)
            time.sleep(3.0)
    finally:
        network.mend()
    back = time.monotonic()
    assert slowest < 1.0
    wait(lambda: not checker.unfinished(ledger), 15, "every answer")
    assert time.monotonic() - back < 15
    check(conclude(world, checker, ledger))
