"""A network that misbehaves on demand, between everybody and a Redis: a TCP port in front of a Unix socket.

proxy.drop()          every connection is reset, and so is each new one, until `mend`
proxy.cut()           every connection is reset once; new ones work
proxy.delay(0.2)      whatever is sent arrives so many seconds later, in both directions
proxy.half_open()     connections stay open and new ones are taken, but nothing arrives any more, either way,
                      as with a pulled cable or a firewall that lost its state. What was sent meanwhile is gone
proxy.mend()          the network works again; half-open connections stay dead, as they do in life
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

_LOOK_S = 0.01
_RESET = struct.pack("ii", 1, 0)


class RedisProxy:
    """Listens at `url`."""

    def __init__(self, redis_socket: Path) -> None:
        self._redis_socket = redis_socket
        self._door = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"redis://127.0.0.1:{self._door.getsockname()[1]}/0"
        self._delay_s = 0.0
        self._refuses = self._swallows = False
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextlib.contextmanager
    def open(self) -> Iterator[RedisProxy]:
        """Serve for a block."""
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
            self._door.close()
            self.cut()

    def drop(self) -> None:
        """Refuse everybody."""
        self._refuses = True
        self.cut()

    def cut(self) -> None:
        """Reset what is open."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()

    def delay(self, seconds: float) -> None:
        """Let everything take longer."""
        self._delay_s = seconds

    def half_open(self) -> None:
        """Let nothing through, and nobody know."""
        self._swallows = True
        with self._lock:
            for pair in self._pairs:
                pair.dead = True

    def mend(self) -> None:
        """Work again."""
        self._refuses = self._swallows = False
        self._delay_s = 0.0

    def _serve(self) -> None:
        self._door.settimeout(_LOOK_S * 10)
        while not self._stop.is_set():
            try:
                client, _ = self._door.accept()
            except TimeoutError:
                continue
            if self._refuses:
                _reset(client)
                continue
            pair = _Pair(client, self._redis_socket, dead=self._swallows)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._carry, args=(pair,), daemon=True).start()

    def _carry(self, pair: _Pair) -> None:
        try:
            pair.carry(lambda: self._delay_s, self._stop)
        finally:
            pair.close()
            with self._lock:
                self._pairs.discard(pair)


class _Pair:
    """One connection of a client and its own one to the Redis; a dead one reads, and passes nothing on."""

    def __init__(self, client: socket.socket, redis_socket: Path, *, dead: bool) -> None:
        self.dead = dead
        self._client = client
        self._redis = socket.socket(socket.AF_UNIX)
        self._redis.connect(str(redis_socket))
        self._under_way: deque[tuple[float, socket.socket, bytes]] = deque()

    def carry(self, delay_s: Callable[[], float], stop: threading.Event) -> None:
        """Pass on what comes until one side ends."""
        other = {self._client: self._redis, self._redis: self._client}
        while not stop.is_set():
            try:
                readable, _, _ = select.select(list(other), [], [], _LOOK_S)
                for one in readable:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    if not self.dead:
                        self._under_way.append((time.monotonic() + delay_s(), other[one], data))
                while self._under_way and self._under_way[0][0] <= time.monotonic():
                    _, to, data = self._under_way.popleft()
                    to.sendall(data)
            except (OSError, ValueError):
                return

    def reset(self) -> None:
        _reset(self._client)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._client.close()
        self._redis.close()


def _reset(client: socket.socket) -> None:
    """End a connection the hard way: the other side gets a reset."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.shutdown(socket.SHUT_RDWR)
        client.close()
