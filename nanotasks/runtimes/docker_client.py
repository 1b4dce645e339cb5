"""Talking to the Docker daemon: a client with deadlines, errors in plain words, and what an inspected object says.

The SDK takes 100 ms to import, so it is imported when a client is made.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanotasks.owners import process_start_time
from nanotasks.runtimes.contract import Running, RuntimeDownError

if TYPE_CHECKING:
    from docker import APIClient

LABEL = "nanotasks"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"


def new_client(timeout_s: float) -> APIClient:
    """A client of the daemon that the environment names. Raises `RuntimeDownError`."""
    from docker import APIClient
    from docker.errors import DockerException
    from docker.utils import kwargs_from_env

    options = kwargs_from_env()
    try:
        _knock(options.get("base_url") or DEFAULT_SOCKET)
        return APIClient(timeout=math.ceil(timeout_s), version="auto", **options)
    except (DockerException, OSError) as error:
        raise RuntimeDownError(
            "Docker does not answer.",
            why=_reason(error),
            fix="Start the Docker daemon and check that you may use its socket, or set NANOTASKS_RUNTIME=process.",
        ) from error


def _knock(url: str) -> None:
    """Fail at once, and without the sockets that the SDK leaks, when nobody listens."""
    kind, _, path = url.partition("://")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(path)


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what the SDK and its HTTP client raise into `RuntimeDownError`; our own errors pass."""
    from docker.errors import DockerException, StreamParseError
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (DockerException, StreamParseError, RequestException, HTTPError) as error:
        raise RuntimeDownError(what, why=_reason(error), fix="Check `docker info` and the daemon's log.") from error


def _reason(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error)
    return text.strip().splitlines()[0] if text.strip() else type(error).__name__


def inspect_image(client: APIClient, name: str) -> dict[str, Any] | None:
    """The image as the daemon describes it, or None when there is no such image."""
    from docker.errors import ImageNotFound

    try:
        found: dict[str, Any] = client.inspect_image(name)  # type: ignore[no-untyped-call]
    except ImageNotFound:
        return None
    return found


def remove(client: APIClient, container_id: str) -> None:
    """Remove a container, whatever its state; one that is gone or going is fine."""
    from docker.errors import APIError

    try:
        client.remove_container(container_id, force=True, v=True)
    except APIError as error:
        if error.status_code not in (404, 409):
            raise


def are_ours(labels: Mapping[str, str] | None, **expected: str) -> bool:
    """Whether a container carries every label that an agent has, and these values of them.

    Names and labels can be given to any container: one that lacks some is somebody else's, and is left alone.
    """
    given = labels or {}
    texts = all(given.get(f"{LABEL}.{name}") for name in ("install", "session", "instance"))
    numbers = all(given.get(f"{LABEL}.{name}", "").isdecimal() for name in ("epoch", "started_ms", "memory_mb"))
    return texts and numbers and all(given[f"{LABEL}.{name}"] == value for name, value in expected.items())


def as_running(labels: dict[str, str], container_id: str, pid: int | None = None) -> Running:
    """What the labels of a container of ours say; `pid` is dropped unless it is visibly that container here."""
    start = _start_of(pid, container_id) if pid else None
    return Running(
        session_id=labels[f"{LABEL}.session"],
        instance_id=labels[f"{LABEL}.instance"],
        epoch=int(labels[f"{LABEL}.epoch"]),
        runtime_id=container_id,
        started_ms=int(labels[f"{LABEL}.started_ms"]),
        pid=pid if start is not None else None,
        pid_start=start,
    )


def _start_of(pid: int, container_id: str) -> int | None:
    """The start time of the container's first process, or None where the daemon counts pids of another machine."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    return process_start_time(pid) if container_id in groups else None


def state(inspected: dict[str, Any]) -> tuple[bool, int]:
    """Whether it runs, and its exit code when it does not."""
    return bool(inspected["State"]["Running"]), int(inspected["State"]["ExitCode"])
