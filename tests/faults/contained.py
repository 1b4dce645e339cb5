"""A household whose agents are scripts in real containers, asked of a Docker daemon that can misbehave."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nanotasks.central import Database
from nanotasks.deliver.service import deliver_session
from nanotasks.runtimes.contract import Exit, Mount, Running, StartSpec
from nanotasks.runtimes.docker import DockerRuntime
from nanotasks.runtimes.docker_client import LABEL, remove
from nanotasks.runtimes.image import CODE_TARGET
from nanotasks.sweep.containers import sweep
from nanotasks.wake import service
from nanotasks.wake.here import Here, Signal
from tests.household import AGENT, WAIT, Household
from tests.scene import Bells, Stage

# Long enough for a call that is answered, short enough to wait for one that is not.
CALL_S = 1.0


class ScriptedContainers(DockerRuntime):
    """The Docker runtime, with scripts in the place of the runner."""

    def __init__(self, install_id: str, host_id: str, image: str, code: Path, timeout_s: float) -> None:
        super().__init__(install_id, host_id, timeout_s=timeout_s)
        self.image = image
        self.code = code
        self.script = WAIT
        self.started: list[StartSpec] = []
        self.changes: dict[str, Any] = {}

    def start(self, spec: StartSpec) -> Running:
        self.started.append(spec)
        mounts = [one for one in spec.mounts if not one.target.startswith(CODE_TARGET)]
        scripted = replace(
            spec,
            image=self.image,
            network="none",
            mounts=(*mounts, Mount(self.code, CODE_TARGET)),
            environment={**spec.environment, "SCRIPT": self.script},
        )
        return super().start(replace(scripted, **self.changes))


@dataclass
class ContainedHousehold(Household):
    """`client` talks to the daemon past its faults."""

    client: Any = None
    install: str = ""
    seen: list[Exit] = field(default_factory=list)

    @classmethod
    def in_containers(
        cls, db: Database, tmp_path: Path, client: Any, image: str, *, timeout_s: float = CALL_S, **values: Any
    ) -> ContainedHousehold:
        """A host of an installation of its own. `DOCKER_HOST` says which daemon its runtime asks."""
        settings = {
            "runtime": "docker",
            "container_stop_grace_s": 1.0,
            "container_start_timeout_s": timeout_s,
            "wake_backoff_s": 0.2,
            "lease_s": 2.0,
            **values,
        }
        stage = Stage.set_up(db, tmp_path, **settings)
        code = tmp_path / "code"
        (code / "agent_runner").mkdir(parents=True)
        (code / "Dockerfile").write_text("")
        (code / "agent_runner" / "__init__.py").write_text("")
        (code / "agent_runner" / "__main__.py").write_text(AGENT)
        install = f"t{uuid.uuid4().hex[:7]}"
        runtime = ScriptedContainers(install, stage.settings.host_id, image, code, timeout_s)
        stage.agent()
        stage.chat("c1")
        here = Here(db, stage.settings, runtime, lambda _name: runtime)
        return cls(stage, runtime, here, client=client, install=install)  # type: ignore[arg-type]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers of this installation, in whatever state."""
        found: list[dict[str, Any]] = self.client.containers(
            all=True, filters={"label": f"{LABEL}.install={self.install}"}
        )
        return found

    def container(self, session_id: str) -> dict[str, Any]:
        """The session's container, as the daemon describes it."""
        found: dict[str, Any] = self.client.inspect_container(self.name(session_id))
        return found

    def name(self, session_id: str) -> str:
        return f"nanotasks-{self.install}-{session_id}"

    def clear(self) -> None:
        self.runtime.close()
        for left in self.containers:
            remove(self.client, left["Id"])

    def told(self, session_id: str, name: str = "ready") -> str:
        self.runtime.last_log = lambda *_: ""  # type: ignore[method-assign]
        return super().told(session_id, name)

    @contextmanager
    def watched(self) -> Iterator[list[Signal]]:
        """The keeper's watch over exits, for a block; what it would ring."""
        rings: list[Signal] = []
        stop = threading.Event()

        def on_exit(ended: Exit) -> None:
            self.seen.append(ended)
            rings.extend(service.on_exit(self.here, ended))

        watcher = threading.Thread(target=self.runtime.watch, args=(on_exit, stop))
        watcher.start()
        try:
            yield rings
        finally:
            stop.set()
            watcher.join(timeout=10)
            assert not watcher.is_alive()

    def settle(self) -> list[Signal]:
        """One pass of the sweep, and the looks and drains that it rings for."""
        rings = sweep(self.here)
        self.answer(rings)
        return rings

    def answer(self, rings: list[Signal]) -> None:
        """Do what is rung, and what that rings, as the workers would."""
        todo = list(rings)
        while todo:
            kind, session_id, *_ = todo.pop(0)
            if kind == "wake":
                todo += service.wake(self.here, session_id).rings
            elif kind == "deliver":
                deliver_session(self.here.db, self.here.settings, session_id, bells=Bells())
