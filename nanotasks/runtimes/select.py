"""Which runtime agents of this host run in.

`auto` means Docker when its daemon answers quickly and an agent image is there or can be built, else child
processes with one plain line that says so. The decision is made once, by whoever starts the workers, and handed
to them as NANOTASKS_RUNTIME: two processes of a host that decide differently could start two agents of a session.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass

from nanotasks.errors import ConfigError, NanotasksError
from nanotasks.runtimes import image
from nanotasks.runtimes.contract import Runtime
from nanotasks.runtimes.docker import DockerRuntime
from nanotasks.runtimes.docker_client import new_client
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.settings import Settings

PROBE_S = 2.0
NOT_ISOLATED = "Agents run as child processes: they are not isolated from this machine."


@dataclass(frozen=True)
class Decision:
    """The runtime's name, and the line for the user when it is not what they might expect."""

    name: str
    notice: str = ""


def _silent(_line: str) -> None:
    return None


def decide(settings: Settings, progress: Callable[[str], None] = _silent, *, build: bool = True) -> Decision:
    """Resolve the setting; unless `build` is off, an agent image that is missing or old is built first.

    `progress` gets the builder's lines. Raises `DependencyDownError` under `docker` when the daemon does not
    answer or there is no image.
    """
    if settings.runtime == "process":
        return Decision("process", NOT_ISOLATED)
    try:
        new_client(PROBE_S).close()
        with contextlib.closing(new_client(settings.container_start_timeout_s)) as client:
            if build:
                image.ensure(client, settings, progress)
            elif not image.is_current(client, settings):
                raise image.ImageBuildError("The agent image is not built yet.", fix="Run `nanotasks image build`.")
    except NanotasksError as error:
        if settings.runtime == "docker":
            raise
        return Decision("process", f"{_why_not(error)} {NOT_ISOLATED}")
    return Decision("docker")


def _why_not(error: NanotasksError) -> str:
    """One line: what is missing, and how to mend it when it is the image and not simply no Docker."""
    if isinstance(error, image.ImageBuildError):
        return str(error)
    return "Docker does not answer."


@functools.cache
def runtime_named(name: str, settings: Settings) -> Runtime:
    """This process's `docker` or `process` runtime, also for agents that were started under another setting."""
    if name == "docker":
        return DockerRuntime(settings.install_id, settings.host_id, timeout_s=settings.container_start_timeout_s)
    if name == "process":
        return ProcessRuntime(settings.data_dir, start_timeout_s=settings.container_start_timeout_s)
    raise ConfigError(f"There is no runtime {name}.", fix="Use docker or process.")


@functools.cache
def runtime(settings: Settings) -> Runtime:
    """The runtime that new agents of this process start in; where nobody decided yet, without building anything."""
    name = settings.runtime if settings.runtime != "auto" else decide(settings, build=False).name
    return runtime_named(name, settings)
