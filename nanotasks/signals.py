"""Bells, pokes and rate limits: everything that talks to Redis besides Celery itself.

Nothing here would be missed: a `FLUSHALL` at any moment costs latency, because the databases hold the work and the
sweeps signal it again. So no function of this module raises when Redis is away, and the ones that a caller uses on
its way (`ring`, `poke`) never block.

    ring      after the commit: `SET bell NX EX`, and only if it was set, send the Celery message that says "look".
              A failed send takes the bell off again and is tried later.
    answered  the task's first act: take the bell off, so that what is committed from now on rings again.
    answer    the same for the kinds that ring with every message. All that ring one queue share a bell, and who rang
              stands in a list beside it; so one Celery message is under way for all of them, and under load a task
              works off many, the oldest first. The ids that a task took are kept under its id until it has done them:
              a task that is killed is sent again, and goes on with them.
    poke      tell whoever listens now (a chat window that waits for an answer); nobody listening is fine.
    listen    the other end; after a broken connection it says so, and the listener looks at its rows once.
    task_at_work     the Celery task this is done in, for the rows of an attempt.
    wait_for_token   a token bucket shared by all processes of the installation.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import redis
from billiard.exceptions import SoftTimeLimitExceeded
from redis.backoff import NoBackoff
from redis.retry import Retry

from nanotasks import faults, logs
from nanotasks.errors import DependencyDownError
from nanotasks.sender import BackgroundSender, Counts, Unreachable
from nanotasks.settings import settings

_log = logs.get("signals")

_PREFIX = "nanotasks"
_CONNECT_TIMEOUT_S = 2.0
_COMMAND_TIMEOUT_S = 5.0
_EXIT_FLUSH_S = 2.0
_POLL_S = 0.5
_SWEEP_EXPIRES_S = 10.0

# Each caller costs a round trip in four; more would wait behind a slow one although another task has time.
_CALLERS_AT_ONCE = 4
# A task that has worked off callers for so long leaves the rest to a new one: other tasks want their turn.
_ANSWERING_S = 0.1
_GATHERED = frozenset({"route", "append", "deliver"})
# A shared bell is short-lived: where its message died with a worker, everybody would wait for its end.
_SHARED_BELL_S = 1

# KEYS: the callers, those in this task's hands, the bell. ARGV: how many, seconds to keep them, the task's own caller
# in its first call. Whoever rings from then on sets the bell anew.
_TAKE_CALLERS = """
if ARGV[3] ~= '' then
  redis.call('DEL', KEYS[3])
  redis.call('ZREM', KEYS[1], ARGV[3])
  local left = redis.call('SMEMBERS', KEYS[2])
  if #left > 0 then return left end
end
redis.call('DEL', KEYS[2])
local oldest = redis.call('ZPOPMIN', KEYS[1], ARGV[1])
local taken = {}
for at = 1, #oldest, 2 do taken[#taken + 1] = oldest[at] end
if #taken > 0 then
  redis.call('SADD', KEYS[2], unpack(taken))
  redis.call('EXPIRE', KEYS[2], ARGV[2])
end
return taken
"""

_TAKE_TOKEN = """
local now = redis.call('TIME')
local at = tonumber(now[1]) + tonumber(now[2]) / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local held = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = math.min(burst, (tonumber(held[1]) or burst) + (at - (tonumber(held[2]) or at)) * rate)
local wait = 0
if tokens >= 1 then tokens = tokens - 1 else wait = (1 - tokens) / rate end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(at))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / rate * 1000) + 1000)
return tostring(wait)
"""


class _Ring(NamedTuple):
    kind: str
    ids: tuple[Any, ...]
    force: bool


class _Poke(NamedTuple):
    topic: str
    payload: str


def ring(kind: str, *ids: Any, force: bool = False) -> None:
    """Signal committed work; returns at once and never raises for the state of Redis.

    `kind` and `ids` are `route(channel_type, platform_id)`, `append(session_id, host_id)`, `wake(session_id,
    host_id)`, `deliver(session_id, host_id)`, `attempt(delivery_id, host_id, number)`, `containers(host_id)`,
    `canary(worker)`. `force` sends without asking the bell, as sweeps do. Raises `KeyError` for another kind.
    """
    from nanotasks.celery_app import SIGNALS

    SIGNALS[kind]
    _sender().put(_Ring(kind, ids, force))


def answered(kind: str, *ids: Any) -> None:
    """Take the bell off, before the first read: what is committed after this rings again."""
    try:
        _redis().delete(_bell(kind, ids))
    except redis.RedisError:
        pass  # the bell runs out by itself


def answer(work: Callable[..., None], kind: str, *ids: Any, task_id: str) -> None:
    """Answer a `route`, `append` or `deliver`: `work` for the signal's own ids, then for all that rang meanwhile.

    Goes on until nobody is left, or for a moment; then the rest is signalled anew. Where `work` fails the others
    are worked off all the same, and the first failure is raised at the end; but not while the central database is
    away. `task_id` is the Celery task's.
    """
    until = time.monotonic() + _ANSWERING_S
    failures: list[Exception] = []
    taken = [ids, *_take_callers(kind, ids, task_id, own=_member(ids))]
    while taken:
        for caller in taken:
            try:
                work(*caller)
            except (DependencyDownError, SoftTimeLimitExceeded):
                raise
            except Exception as error:
                _log.warning("caller_failed", kind=kind, ids=list(caller), error=repr(error))
                failures.append(error)
        if time.monotonic() > until:
            _forget_in_hand(task_id)
            ring(kind, *ids, force=True)
            break
        taken = _take_callers(kind, ids, task_id)
    if failures:
        raise failures[0]


def resume(*, host_id: str) -> None:
    """Signal anew who rang the queues of a host whose worker begins: a message may have died with the one before."""
    from nanotasks.celery_app import INBOUND, host_queue

    for kind, queue in (("route", INBOUND), ("append", host_queue(host_id)), ("deliver", host_queue(host_id))):
        try:
            oldest = cast(list[bytes], _redis().zrange(_callers_key(kind, queue), 0, 0))
        except redis.RedisError:
            return
        if oldest:
            ring(kind, *json.loads(_text(oldest[0])), force=True)


def sweep_now() -> None:
    """Ask for the sweeps that find lost signals, without waiting for their time; for a worker that begins."""
    from celery.exceptions import CeleryError
    from kombu.exceptions import KombuError

    from nanotasks.celery_app import DEFAULT, app

    for name in ("sweep.signals", "sweep.due"):
        try:
            app.send_task(name, args=(True,), queue=DEFAULT, expires=_SWEEP_EXPIRES_S, ignore_result=True)
        except (CeleryError, KombuError, redis.RedisError, OSError) as error:
            _log.warning("sweep_not_sent", sweep=name, error=str(error))
            return


def poke(topic: str, payload: Mapping[str, Any] | None = None) -> None:
    """Tell everybody who listens to `topic` now; returns at once, may be lost."""
    _sender().put(_Poke(topic, json.dumps(dict(payload or {}), sort_keys=True)))


def listen(topics: Sequence[str], stop: threading.Event | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pokes as `(topic, payload)` until `stop` is set.

    Once connected, and after every broken connection, each topic comes once with an empty payload: pokes may have
    been missed, so look at the rows.
    """
    names = {f"{_PREFIX}:poke:{topic}": topic for topic in topics}
    while stop is None or not stop.is_set():
        channel = _redis().pubsub()  # type: ignore[no-untyped-call]
        try:
            channel.subscribe(*names)
            while stop is None or not stop.is_set():
                message = channel.get_message(timeout=_POLL_S)
                # The client subscribes again by itself, so a confirmation is what tells of a new connection.
                if message is not None and message["type"] in {"subscribe", "message"}:
                    payload = json.loads(message["data"]) if message["type"] == "message" else {}
                    yield names[_text(message["channel"])], payload
        except redis.RedisError:
            _pause(stop, _POLL_S)
        finally:
            channel.close()


def task_at_work() -> str | None:
    """The id of the Celery task in which this is called, None outside of one."""
    from celery import current_task

    return current_task.request.id if current_task else None


def wait_for_token(bucket: str, rate_per_s: float, burst: float = 1.0) -> float:
    """Take one token of a bucket; 0.0 when granted, else the seconds until it is worth asking again.

    A `rate_per_s` of 0 means no limit. When Redis is away the token is granted: the platform's own limit answers.
    """
    if rate_per_s <= 0:
        return 0.0
    try:
        answer = _redis().eval(_TAKE_TOKEN, 1, f"{_PREFIX}:rate:{bucket}", str(rate_per_s), str(max(1.0, burst)))
    except redis.RedisError:
        return 0.0
    return float(_text(answer))


def forget_host(host_id: str) -> None:
    """Empty the queue of a host that is down: what it says is in the database, and the list would only grow."""
    from nanotasks.celery_app import host_queue

    queue = host_queue(host_id)
    try:
        _redis().delete(queue, *(_callers_key(kind, queue) for kind in sorted(_GATHERED)))
    except redis.RedisError:
        pass


def queue_depths(queues: Sequence[str]) -> dict[str, int] | None:
    """How many signals wait in each of these queues; None when Redis does not answer."""
    try:
        return {queue: _redis().llen(queue) for queue in queues}
    except redis.RedisError:
        return None


def redis_ok() -> bool:
    """Whether Redis answers now; takes some seconds at most to find out that it does not."""
    try:
        return bool(_redis().ping())
    except redis.RedisError:
        return False


def flush(timeout_s: float = _EXIT_FLUSH_S) -> bool:
    """Wait until what was rung in this process has left; False when that took longer."""
    return _sender().flush(timeout_s)


def counts() -> Counts:
    """What became of the signals of this process: sent, dropped, failed."""
    return _sender().counts


def client_url(broker_url: str) -> str:
    """The redis-py form of a broker URL: `redis+socket:///path` becomes `unix:///path`."""
    scheme, found, rest = broker_url.partition("://")
    return f"{'unix' if scheme == 'redis+socket' else scheme}{found}{rest}"


def _take_callers(kind: str, ids: tuple[Any, ...], task_id: str, own: str = "") -> list[tuple[Any, ...]]:
    keys = (_callers_key(kind, _queue(kind, ids)), _in_hand_key(task_id), _bell(kind, ids))
    try:
        taken = _redis().eval(_TAKE_CALLERS, len(keys), *keys, _CALLERS_AT_ONCE, settings().signal_expires_s, own)
    except redis.RedisError:
        return []
    return [tuple(json.loads(member)) for member in cast(list[bytes], taken)]


def _forget_in_hand(task_id: str) -> None:
    try:
        _redis().delete(_in_hand_key(task_id))
    except redis.RedisError:
        pass


def _in_hand_key(task_id: str) -> str:
    return f"{_PREFIX}:in-hand:{task_id}"


def _bell(kind: str, ids: tuple[Any, ...]) -> str:
    # A signal of one session is known by the session alone.
    return f"{_PREFIX}:bell:{kind}:{_queue(kind, ids) if kind in _GATHERED else ids[0]}"


def _callers_key(kind: str, queue: str) -> str:
    return f"{_PREFIX}:callers:{kind}:{queue}"


def _queue(kind: str, ids: tuple[Any, ...]) -> str:
    from nanotasks.celery_app import SIGNALS

    return SIGNALS[kind](*ids).queue


def _member(ids: tuple[Any, ...]) -> str:
    return json.dumps(ids, ensure_ascii=False)


def _send(item: Hashable) -> None:
    if isinstance(item, _Poke):
        _publish_poke(item)
    else:
        _publish_ring(cast(_Ring, item))


def _publish_poke(item: _Poke) -> None:
    try:
        _redis().publish(f"{_PREFIX}:poke:{item.topic}", item.payload)
    except redis.RedisError as error:
        raise Unreachable from error


def _publish_ring(item: _Ring) -> None:
    try:
        if not _set_bell(item):
            return
    except redis.RedisError as error:
        raise Unreachable from error
    faults.point("ring.after_bell")
    try:
        _publish_message(item)
    except BaseException:
        answered(item.kind, *item.ids)
        raise


def _set_bell(item: _Ring) -> bool:
    """Whether a message is to be sent: the bell did not ring yet, or nobody asks it.

    Who finds a shared bell rung puts itself down, and then asks once more: the task may have taken the bell off and
    read who rang in between.
    """
    from nanotasks.celery_app import app

    bell = _bell(item.kind, item.ids)
    lasts_s = _SHARED_BELL_S if item.kind in _GATHERED else settings().bell_s
    if _redis().set(bell, "1", nx=not item.force, ex=lasts_s) or item.force:
        return True
    if item.kind not in _GATHERED:
        return False
    with _redis().pipeline() as pipe:
        key = _callers_key(item.kind, _queue(item.kind, item.ids))
        # Who rang first is first; who rings again keeps its place.
        pipe.zadd(key, {_member(item.ids): app.now().timestamp()}, nx=True)
        pipe.expire(key, settings().signal_expires_s)
        pipe.set(bell, "1", nx=True, ex=lasts_s)
        return bool(pipe.execute()[-1])


def _publish_message(item: _Ring) -> None:
    from kombu.exceptions import OperationalError

    from nanotasks.celery_app import SIGNALS, app

    message = SIGNALS[item.kind](*item.ids)
    try:
        app.send_task(
            message.task,
            args=message.args,
            queue=message.queue,
            task_id=message.task_id,
            retries=message.retries,
            expires=settings().signal_expires_s,
            ignore_result=True,
            # A signal sent while a task runs is not that task's child: anybody may send the same one.
            add_to_parent=False,
        )
    except (OperationalError, redis.RedisError, OSError) as error:
        raise Unreachable from error


class _Process:
    """What one process has: a connection pool and a sender, each made on first use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.redis: redis.Redis | None = None
        self.sender: BackgroundSender | None = None


_process = _Process()


def _redis() -> redis.Redis:
    from nanotasks.celery_app import broker_url

    with _process.lock:
        if _process.redis is None:
            _process.redis = redis.Redis.from_url(
                client_url(broker_url(settings())),
                socket_timeout=_COMMAND_TIMEOUT_S,
                socket_connect_timeout=_CONNECT_TIMEOUT_S,
                health_check_interval=10,
                # A connection that broke is made anew once, at once; waiting is the caller's business.
                retry=Retry(NoBackoff(), 1),
            )
        return _process.redis


def _sender() -> BackgroundSender:
    with _process.lock:
        if _process.sender is None:
            _process.sender = BackgroundSender(_send, keep_s=settings().signal_expires_s)
            atexit.register(_flush_at_exit, os.getpid())
        return _process.sender


def _flush_at_exit(pid: int) -> None:
    if pid == os.getpid():
        flush()


def _start_afresh() -> None:
    global _process
    _process = _Process()


# A forked child must share neither the parent's connections nor its thread's queue.
os.register_at_fork(after_in_child=_start_afresh)


def _pause(stop: threading.Event | None, seconds: float) -> None:
    if stop is None:
        time.sleep(seconds)
    else:
        stop.wait(seconds)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
