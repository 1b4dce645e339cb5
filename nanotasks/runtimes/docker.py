"""Agents as Docker containers: one fixed name per session, so that the daemon itself refuses a second one.

    nothing ──create──▶ created ──start──▶ running ──▶ exited ──(exit reported)──▶ removed
                           └─ flags are checked here; a container that lacks one is removed

What each failure does:

- create or start succeeded but the answer was lost: the next start meets the name. A running container is
  adopted (`AlreadyRunningError`), any other is removed and made again.
- the worker dies anywhere: the same. An exited container stays until a watcher has reported its exit.
- the daemon restarts: its containers end; `watch` connects again and reports what ended meanwhile.

The client is made on first use in each process, never inherited over a fork, and every call has a deadline.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nanotasks.clock import now_ms
from nanotasks.owners import process_start_time
from nanotasks.runtimes.contract import (
    AlreadyRunningError,
    Exit,
    Mount,
    Running,
    RuntimeDownError,
    StartFailedError,
    StartSpec,
)
from nanotasks.runtimes.docker_client import LABEL, are_ours, as_running, explained, new_client, remove, state
from nanotasks.runtimes.docker_watch import ExitWatcher, how_it_ended
from nanotasks.runtimes.hardening import container_user, host_config, missing_flags
from nanotasks.runtimes.image import CODE_TARGET, carries_code
from nanotasks.runtimes.ownership import give_to

if TYPE_CHECKING:
    from docker import APIClient

CONFLICT_TRIES = 3
# Longer than another worker takes from creating a container to starting it.
STARTING_S = 2.0


class DockerRuntime:
    """Runs agents as containers of the daemon that the environment names (`DOCKER_HOST`)."""

    name = "docker"
    isolates = True

    def __init__(self, install_id: str, host_id: str, *, timeout_s: float = 30.0) -> None:
        self._install_id = install_id
        self._host_id = host_id
        self._timeout_s = timeout_s
        self._made: tuple[int, APIClient, dict[str, Any]] | None = None
        self._pids: dict[str, tuple[int, int]] = {}

    def _connect(self) -> tuple[APIClient, dict[str, Any]]:
        """This process's client, and what the daemon said about itself."""
        if self._made is None or self._made[0] != os.getpid():
            client = new_client(self._timeout_s)
            self._made = (os.getpid(), client, client.info())
            self._pids = {}
        return self._made[1], self._made[2]

    def close(self) -> None:
        """Close this process's connection; the next call opens one again."""
        if self._made is not None and self._made[0] == os.getpid():
            self._made[1].close()
        self._made = None

    @property
    def _client(self) -> APIClient:
        return self._connect()[0]

    @property
    def _labels(self) -> list[str]:
        return [f"{LABEL}.install={self._install_id}", f"{LABEL}.host={self._host_id}"]

    def container_name(self, session_id: str) -> str:
        """`nanotasks-<install>-<session>`."""
        return f"nanotasks-{self._install_id}-{session_id}"

    def start(self, spec: StartSpec) -> Running:
        """Start the session's agent. Raises `AlreadyRunningError` (adopt it) or `StartFailedError`."""
        try:
            with explained("The agent's container could not be started."):
                return self._start(spec)
        except StartFailedError:
            raise
        except RuntimeDownError as error:
            raise StartFailedError(error.what, why=error.why, fix=error.fix) from error

    def _start(self, spec: StartSpec) -> Running:
        client, info = self._connect()
        user = container_user(os.getuid(), os.getgid(), info.get("SecurityOptions") or [])
        if os.getuid() == 0:
            for mount in spec.mounts:
                if mount.owned:
                    give_to(mount.source, *user)
        mounts = [mount for mount in spec.mounts if not self._is_baked_in(client, spec, mount)]
        config = self._config(replace(spec, mounts=tuple(mounts)), user, info)
        container_id = self._create(client, spec, config)
        self._check(client, container_id, config, swap_limit=bool(info.get("SwapLimit")))
        try:
            client.start(container_id)
        except Exception:
            # Perhaps only the answer was lost.
            if (running := self.find(spec.session_id)) is not None:
                return running
            remove(client, container_id)
            raise
        return self._remember(client.inspect_container(container_id))

    def _is_baked_in(self, client: APIClient, spec: StartSpec, mount: Mount) -> bool:
        return mount.target == CODE_TARGET and carries_code(client, spec.image, mount.source)

    def _config(self, spec: StartSpec, user: tuple[int, int], info: dict[str, Any]) -> dict[str, Any]:
        labels = {
            "install": self._install_id,
            "host": self._host_id,
            "session": spec.session_id,
            "group": spec.agent_group_id,
            "instance": spec.instance_id,
            "epoch": str(spec.epoch),
            "started_ms": str(now_ms()),
            "memory_mb": str(spec.limits.memory_mb),
        }
        return {
            "Image": spec.image,
            "Cmd": list(spec.command),
            "Entrypoint": [],
            "WorkingDir": spec.working_dir,
            "User": f"{user[0]}:{user[1]}",
            "Env": [f"{name}={value}" for name, value in spec.environment.items()],
            "Labels": {f"{LABEL}.{name}": value for name, value in labels.items()},
            "HostConfig": host_config(spec, user, float(info.get("NCPU") or math.inf)),
        }

    def _create(self, client: APIClient, spec: StartSpec, config: dict[str, Any]) -> str:
        from docker.errors import APIError, ImageNotFound

        name = self.container_name(spec.session_id)
        for _ in range(CONFLICT_TRIES):
            try:
                created: dict[str, Any] = client.create_container_from_config(config, name)  # type: ignore[no-untyped-call]
                return str(created["Id"])
            except ImageNotFound as error:
                raise StartFailedError(
                    f"There is no agent image {spec.image}.", fix="Run `nanotasks image build`."
                ) from error
            except APIError as error:
                if error.status_code != 409:
                    raise
            self._clear_name(client, spec.session_id)
        raise StartFailedError(f"The container name {name} stays in use.", fix=f"Remove it: docker rm -f {name}")

    def _clear_name(self, client: APIClient, session_id: str) -> None:
        """Somebody has the name: report a live agent, remove anything else. One that is being started gets a moment."""
        found = self._settled(session_id)
        if found is None:
            return
        if not self._is_ours(found, session_id):
            name = self.container_name(session_id)
            raise StartFailedError(f"{name} is not a container of nanotasks.", fix=f"Remove it: docker rm -f {name}")
        if state(found)[0]:
            raise AlreadyRunningError(self._remember(found))
        remove(client, found["Id"])

    def _settled(self, session_id: str) -> dict[str, Any] | None:
        give_up = time.monotonic() + STARTING_S
        while (found := self._inspect(session_id)) is not None and found["State"]["Status"] == "created":
            if time.monotonic() > give_up:
                break
            time.sleep(0.02)
        return found

    def _check(self, client: APIClient, container_id: str, config: dict[str, Any], *, swap_limit: bool) -> None:
        inspected = client.inspect_container(container_id)
        missing = missing_flags(inspected, config["HostConfig"], config["User"], swap_limit=swap_limit)
        if missing:
            remove(client, container_id)
            raise StartFailedError(
                "The Docker daemon did not confine the agent's container as asked.",
                why=f"Wrong: {', '.join(missing)}.",
                fix="Use a daemon that supports these flags, or NANOTASKS_RUNTIME=process.",
            )

    def _remember(self, inspected: dict[str, Any]) -> Running:
        running = as_running(inspected["Config"]["Labels"], inspected["Id"], inspected["State"]["Pid"])
        if running.pid is not None and running.pid_start is not None:
            self._pids[running.session_id] = (running.pid, running.pid_start)
        return running

    def _inspect(self, session_id: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        try:
            found: dict[str, Any] = self._client.inspect_container(self.container_name(session_id))
        except NotFound:
            return None
        return found

    def _is_ours(self, found: dict[str, Any], session_id: str) -> bool:
        return are_ours(found["Config"]["Labels"], install=self._install_id, session=session_id)

    def _inspect_live(self, session_id: str) -> dict[str, Any] | None:
        found = self._inspect(session_id)
        return found if found is not None and state(found)[0] and self._is_ours(found, session_id) else None

    def find(self, session_id: str) -> Running | None:
        """The session's live agent, asked of the daemon. Raises `RuntimeDownError`."""
        with explained("Docker does not answer."):
            found = self._inspect_live(session_id)
            if found is None:
                self._pids.pop(session_id, None)
                return None
            return self._remember(found)

    def is_alive(self, session_id: str) -> bool:
        """By the container's first process where this process has seen its pid; else asked of the daemon."""
        known = self._pids.get(session_id)
        if known is not None and process_start_time(known[0]) == known[1]:
            return True
        return self.find(session_id) is not None

    def list(self) -> list[Running]:
        """Every live agent of this installation on this host. Raises `RuntimeDownError`."""
        with explained("Docker does not answer."):
            # One that is frozen is alive: it can be thawed at any time.
            found = self._client.containers(filters={"label": self._labels, "status": ["running", "paused"]})
            ours = [container for container in found if are_ours(container["Labels"])]
            return [as_running(container["Labels"], container["Id"]) for container in ours]

    def stop(self, session_id: str, grace_s: float, reason: str) -> Exit | None:
        """SIGTERM, SIGKILL after the grace; returns once the daemon says that it runs no more, and removes it."""
        from docker.errors import NotFound

        with explained("The agent's container could not be stopped."):
            found = self._inspect_live(session_id)
            if found is None:
                return None
            with contextlib.suppress(NotFound):
                self._client.stop(found["Id"], timeout=math.ceil(grace_s))
            code = self._code_of_the_dead(found["Id"])
            self._pids.pop(session_id, None)
            return Exit(session_id, found["Config"]["Labels"][f"{LABEL}.instance"], code, f"stopped: {reason}")

    def _code_of_the_dead(self, container_id: str) -> int | None:
        """Prove that the container runs no more, remove it, and say how it ended."""
        from docker.errors import NotFound

        try:
            running, code = state(self._client.inspect_container(container_id))
        except NotFound:
            return None
        if running:
            raise RuntimeDownError("Docker did not stop the agent's container.", fix="Check the daemon's log.")
        remove(self._client, container_id)
        return code

    def last_exit(self, session_id: str, instance_id: str) -> Exit | None:
        """By the ended container, which stays until a watcher has reported its exit."""
        with explained("Docker does not answer."):
            found = self._inspect(session_id)
            if found is None or found["State"]["Status"] not in ("exited", "dead"):
                return None
            if not are_ours(found["Config"]["Labels"], install=self._install_id, instance=instance_id):
                return None
            ended = how_it_ended(self._client, found["Id"])
            return Exit(session_id, instance_id, *ended) if ended else None

    def last_log(self, session_id: str, lines: int = 20) -> str:
        """The end of the agent's log, while its container is there."""
        from docker.errors import APIError

        with explained("Docker does not answer."):
            try:
                text: bytes = self._client.logs(self.container_name(session_id), tail=lines)
            except APIError as error:
                # Gone, or going.
                if error.status_code in (404, 409):
                    return ""
                raise
            return text.decode(errors="replace").rstrip("\n")

    def watch(self, on_exit: Callable[[Exit], None], stop: threading.Event) -> None:
        """Report exits until `stop` is set, over a connection of its own."""
        ExitWatcher(lambda: new_client(self._timeout_s), self._labels, on_exit, stop).run()
