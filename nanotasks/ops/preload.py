"""Importing, before processes are forked, what they will need: then they share its memory and start at once."""

from __future__ import annotations

import gc
import importlib

from nanotasks.celery_app import TASK_MODULES

# Whatever the first message or the first wake would import, which would be paid once per process and while it waits.
_WORK = (
    "nanotasks.ops.worker",
    "nanotasks.ops.keeper",
    "nanotasks.channels.file.sender",
    "nanotasks.channels.terminal.sender",
    "nanotasks.runtimes.process",
    "sqlalchemy.dialects.sqlite",
    "kombu.transport.redis",
    "regex",
)
_GATEWAY = ("nanotasks.gateway.server", "nanotasks.channels.terminal.server", "h11")
_DOCKER = ("docker", "docker.models.containers")


def preload(*, gateway: bool = False) -> None:
    """Import what workers and keepers need, and the gateway."""
    for module in (*TASK_MODULES, *_WORK, *(_GATEWAY if gateway else ())):
        importlib.import_module(module)


def settle_memory(runtime: str) -> None:
    """Import what the chosen runtime needs, and keep the collector from writing in memory that is to be shared."""
    for module in _DOCKER if runtime == "docker" else ():
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
