"""Redis's address, in Celery's form and in redis-py's, and its clock, by which signals age."""

from __future__ import annotations

import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nanotasks.paths import socket_path
from nanotasks.settings import Settings

_READ_EVERY_S = 60.0
_ASK_AGAIN_S = 5.0
_TIMEOUT_S = 2.0


def broker_url(config: Settings) -> str:
    """The broker's URL: the configured Redis, or the private one of `nanotasks up` on its Unix socket."""
    if not config.redis_url:
        return f"redis+socket://{socket_path(config, 'redis.sock')}"
    scheme, found, rest = config.redis_url.partition("://")
    aliases = {"unix": "redis+socket", "valkey": "redis", "valkeys": "rediss"}
    return f"{aliases.get(scheme, scheme)}{found}{rest}"


def client_url(broker_url: str) -> str:
    """The redis-py form of a broker URL: `redis+socket:///path` becomes `unix:///path`."""
    scheme, found, rest = broker_url.partition("://")
    return f"{'unix' if scheme == 'redis+socket' else scheme}{found}{rest}"


class RedisClock:
    """The only clock that all senders and receivers of signals share: their own may be an hour apart.

    It is read now and then on a connection of its own, and carried on between by the monotonic clock, which nobody
    puts forward or back. While Redis is away that goes on; who never reached it has only the own clock.
    """

    def __init__(self, url: str) -> None:
        self._url = client_url(url)
        # Redis's clock minus the monotonic one, and when on the latter it is read anew.
        self._ahead_s: float | None = None
        self._due_at = 0.0

    def now_s(self) -> float:
        """Seconds since the epoch. Asks Redis when that is due, and then waits for seconds at most."""
        if time.monotonic() >= self._due_at:
            self._read()
        return time.time() if self._ahead_s is None else time.monotonic() + self._ahead_s

    def _read(self) -> None:
        # No lock, which a fork would inherit as held: who comes meanwhile goes on with what is known, or asks as well.
        if self._ahead_s is not None:
            self._due_at = time.monotonic() + _ASK_AGAIN_S
        try:
            with redis.Redis.from_url(
                self._url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
            ) as client:
                seconds, micros = client.time()
        except redis.RedisError:
            self._due_at = time.monotonic() + _ASK_AGAIN_S
        else:
            now = time.monotonic()
            self._ahead_s, self._due_at = seconds + micros / 1e6 - now, now + _READ_EVERY_S
