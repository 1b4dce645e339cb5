"""One whole installation under fault: `nanotasks up`, a platform before and behind it, and the switch for crash points.

The switch is a file that all processes read at each point, so that one installation bears fault after fault.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from nanotasks.channels.webhook.signature import signed_headers
from nanotasks.paths import socket_path
from nanotasks.testing import wait_for
from tests.faults.platform import Platform
from tests.installation import Installation, children, named, wait_until_gone

SECRET = "the secret of the faults"
CHATS_AT_ONCE = 240

# Everything that is waited for is short here; what is promised for the true values is in `test_recovery.py`.
QUICK = {
    "sweep_signals_period_s": "0.5",
    "sweep_due_period_s": "0.5",
    "sweep_containers_period_s": "0.5",
    "sweep_hosts_period_s": "0.5",
    "resignal_after_s": "1",
    "bell_s": "1",
    "host_heartbeat_s": "0.5",
    "supervise_restart_s": "0.1",
    "inbound_backoff_s": "0.2",
    "inbound_max_tries": "3",
    "wake_backoff_s": "0.2",
    "delivery_backoff_s": "0.3",
    "delivery_timeout_s": "2",
    "webhook_timeout_s": "1.5",
    "container_stop_grace_s": "1",
    "max_containers": "6",
    "claim_tolerance_s": "3",
    "first_heartbeat_s": "4",
    "heartbeat_ceiling_s": "6",
}


class World:
    """`up` with webhook chats `c0`, `c1`, …, each wired to one agent; a platform that posts and is posted to."""

    def __init__(self, directory: Path, platform: Platform, **changes: str) -> None:
        self.platform = platform
        self.switch = directory / "fault"
        self.tally = directory / "tally"
        self._chats_made = 0
        self._chats_used = 0
        directory.mkdir(parents=True, exist_ok=True)
        self.clear()
        self.here = Installation(
            directory,
            webhook_secret=SECRET,
            webhook_outbound_url=platform.url,
            webhook_threads="false",
            log_format="text",
            log_level="info",
            **changes,
        )
        self.here.environment |= {"NANOTASKS_FAULT": f"@{self.switch}", "NANOTASKS_FAULT_TALLY": str(self.tally)}
        self.here.run("db", "upgrade")

    @contextmanager
    def running(self) -> Iterator[World]:
        """`up` for a block."""
        self.make_chats()
        self.up = self.here.start("up", "--no-chat")
        try:
            self.wait_until_open()
            yield self
        finally:
            self.clear()
            self.here.stop()

    def wait_until_open(self) -> None:
        """The gateway takes messages."""
        wait_for(lambda: "nanotasks is up" in self.here.log("up") and self._is_ready(), 60, what="the gateway")

    def crash(self) -> None:
        """Kill everything but the agents, as a power cut would; nothing starts again before `restart`."""
        theirs = [pid for part in ("redis", "worker", "keeper", "gateway") for pid in self.processes(part)]
        for pid in (self.up.pid, *theirs):
            os.kill(pid, signal.SIGKILL)
        self.up.wait()
        wait_until_gone(theirs)

    def restart(self) -> None:
        """Start again, after a `crash` if nobody crashed it before."""
        if self.up.poll() is None:
            self.crash()
        (self.here.directory / "up.log").write_text("")
        self.up = self.here.start("up", "--no-chat")
        self.wait_until_open()

    def processes(self, name: str) -> list[int]:
        """The pids of a part of `up`: `redis`, `worker` (with its pool), `keeper`, `gateway`."""
        if name == "redis":
            return [int(redis.Redis(unix_socket_path=self.redis_socket).info("server")["process_id"])]
        return named(children(self.up.pid), name)

    @property
    def redis_socket(self) -> str:
        """Where the private Redis of `up` listens."""
        return str(socket_path(self.here.settings, "redis.sock"))

    def _is_ready(self) -> bool:
        url = f"http://127.0.0.1:{self.here.settings.gateway_port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    # Faults

    def arm(self, text: str) -> None:
        """From now on these faults happen; hits are counted from now on."""
        self.clear()
        fresh = self.switch.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.switch)

    def clear(self) -> None:
        """No more faults, and no hits."""
        self.switch.unlink(missing_ok=True)
        self.tally.unlink(missing_ok=True)

    def hits(self) -> list[tuple[str, float]]:
        """Every point that was reached since it was armed, with the time of the monotonic clock in seconds."""
        lines = self.tally.read_text().splitlines() if self.tally.exists() else []
        return [(name, int(at_ms) / 1000) for name, _, at_ms in (line.partition(" ") for line in lines)]

    # Messages

    def make_chats(self) -> None:
        """Some more chats, wired to the agent."""
        names = [f"c{number}" for number in range(self._chats_made, self._chats_made + CHATS_AT_ONCE)]
        self._chats_made += CHATS_AT_ONCE
        self.here.apply(
            groups=[{"folder": "bea", "name": "Bea"}],
            chats=[{"chat": f"webhook:{name}", "unknown_sender_policy": "public"} for name in names],
            wirings=[{"chat": f"webhook:{name}", "group": "bea", "engage_pattern": "."} for name in names],
        )

    def chats(self, count: int) -> list[str]:
        """Chats nobody has spoken in."""
        if self._chats_used + count > self._chats_made:
            self.make_chats()
        self._chats_used += count
        return [f"c{number}" for number in range(self._chats_used - count, self._chats_used)]

    def say(self, chat: str, message_id: str, text: str, *, timeout_s: float = 30.0) -> None:
        """Post as a platform does: again and again until it is taken."""
        wait_for(lambda: self._post(chat, message_id, text), timeout_s, what=f"the acceptance of {message_id}")

    def _post(self, chat: str, message_id: str, text: str) -> bool:
        body = json.dumps({"id": message_id, "platform_id": chat, "text": text, "sender_id": "ann"}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.here.settings.gateway_port}/webhooks/webhook",
            data=body,
            headers={"Content-Type": "application/json", **signed_headers(SECRET, time.time(), body)},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status in {200, 202})
        except urllib.error.HTTPError as refused:
            with refused:
                assert refused.code in {429, 503}, f"{refused.code}: {refused.read()!r}"
                return False
        except OSError:
            return False


def wait(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """As `wait_for`, with a look every 20 ms: recoveries are timed by it."""
    wait_for(condition, timeout_s, every_s=0.02, what=what)
