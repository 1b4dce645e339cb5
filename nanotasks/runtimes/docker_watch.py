"""Exits of containers, from the daemon's event stream.

    subscribe (a second into the past) ─▶ report what ended meanwhile ─▶ report each `die` event
        ▲                                                                        │
        └──── the stream broke, or a report failed and is due again ◀────────────┘

An ended container stays until its exit was reported, so a report is made at least once. Reports of an exit
that another process handled already are harmless: whoever listens goes by the instance id.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nanotasks import logs
from nanotasks.runtimes.contract import Exit, RuntimeDownError
from nanotasks.runtimes.docker_client import LABEL, are_ours, explained, remove
from nanotasks.runtimes.exits import describe_exit

if TYPE_CHECKING:
    from docker import APIClient

log = logs.get(__name__)

RECONNECT_S = 1.0
REPORT_AGAIN_S = 5.0
CLOSE_CHECK_S = 0.2
# A container that was created but not started within this time belongs to a start that died.
UNSTARTED_S = 120
_KILLED = 137
_LAST_LINES = 5
_LOG_LOOKS = 6
_LOG_PAUSE_S = 0.05


class ExitWatcher:
    """Watches the containers that carry `labels` until `stop` is set."""

    def __init__(
        self,
        connect: Callable[[], APIClient],
        labels: list[str],
        on_exit: Callable[[Exit], None],
        stop: threading.Event,
    ) -> None:
        self._connect = connect
        self._labels = labels
        self._on_exit = on_exit
        self._stop = stop
        self._again_at = math.inf
        # Events up to here were seen by this watcher, or belong to the time before it.
        self._seen_ns = time.time_ns()

    def run(self) -> None:
        """Watch, and connect again after every break."""
        while not self._stop.is_set():
            try:
                with explained("The stream of Docker events broke."), contextlib.closing(self._connect()) as client:
                    self._watch(client)
            except RuntimeDownError as error:
                log.warning("docker_events_lost", error=str(error))
            self._stop.wait(RECONNECT_S)

    def _watch(self, client: APIClient) -> None:
        self._again_at = math.inf
        filters = {"type": "container", "event": "die", "label": self._labels}
        stream = client.events(since=self._seen_ns // 1_000_000_000 - 1, filters=filters, decode=True)
        done = threading.Event()
        closer = threading.Thread(target=self._close_when_due, args=(stream, done), daemon=True)
        closer.start()
        try:
            replayed = self._report_ended(client)
            for event in stream:
                container_id, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
                if container_id not in replayed and are_ours(attributes):
                    old = event["timeNano"] <= self._seen_ns
                    self._report(client, container_id, attributes, gone_is_handled=old)
                self._seen_ns = max(self._seen_ns, event["timeNano"])
        finally:
            done.set()
            closer.join()

    def _close_when_due(self, stream: Any, done: threading.Event) -> None:
        """Reading the stream blocks, so another thread ends it."""
        while not done.wait(CLOSE_CHECK_S):
            if self._stop.is_set() or time.monotonic() >= self._again_at:
                stream.close()
                return

    def _report_ended(self, client: APIClient) -> set[str]:
        """Report what ended while nobody watched; the ids, whose events may follow."""
        ended = self._ours(client, "exited", "dead")
        for found in ended:
            self._report(client, found["Id"], found["Labels"])
        for found in self._ours(client, "created"):
            if found["Created"] < time.time() - UNSTARTED_S:
                remove(client, found["Id"])
        return {found["Id"] for found in ended}

    def _ours(self, client: APIClient, *states: str) -> list[dict[str, Any]]:
        found = client.containers(all=True, filters={"label": self._labels, "status": list(states)})
        return [container for container in found if are_ours(container["Labels"])]

    def _report(
        self, client: APIClient, container_id: str, labels: dict[str, str], *, gone_is_handled: bool = False
    ) -> None:
        described = how_it_ended(client, container_id)
        if described is None and gone_is_handled:
            return
        code, reason = described or _from_event(labels)
        session_id, instance_id = labels[f"{LABEL}.session"], labels[f"{LABEL}.instance"]
        try:
            self._on_exit(Exit(session_id, instance_id, code, reason))
        except Exception:
            log.exception("exit_report_failed", session=session_id, instance=instance_id)
            self._again_at = min(self._again_at, time.monotonic() + REPORT_AGAIN_S)
            return
        remove(client, container_id)


def how_it_ended(client: APIClient, container_id: str) -> tuple[int, str] | None:
    """Exit code and reason of an ended container, or None when it was removed already."""
    from docker.errors import APIError, NotFound

    try:
        inspected = client.inspect_container(container_id)
    except NotFound:
        return None
    code, lines = int(inspected["State"]["ExitCode"]), ""
    # A container that is being removed has no log any more.
    with contextlib.suppress(APIError):
        lines = _last_words(client, container_id) if code else ""
    exhausted = inspected["State"]["OOMKilled"] and code == _KILLED
    memory_mb = int(inspected["Config"]["Labels"][f"{LABEL}.memory_mb"]) if exhausted else 0
    return code, describe_exit(code, log=lines, out_of_memory_mb=memory_mb)


def _last_words(client: APIClient, container_id: str) -> str:
    """The end of a log. The daemon tells of an end a moment before it has written down what was said last."""
    for _ in range(_LOG_LOOKS):
        said = client.logs(container_id, tail=_LAST_LINES).decode(errors="replace")
        if said:
            break
        time.sleep(_LOG_PAUSE_S)
    return str(said)


def _from_event(attributes: dict[str, str]) -> tuple[int | None, str]:
    code = attributes.get("exitCode")
    return (int(code), describe_exit(int(code))) if code is not None else (None, "its container was removed")
