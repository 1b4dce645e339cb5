"""`nanotasks flower`: the live view of workers, tasks and retries."""

from __future__ import annotations

import errno
import os
import runpy
import socket
from typing import NoReturn

from nanotasks import logs
from nanotasks.assets import asset
from nanotasks.celery_app import app
from nanotasks.errors import ConfigError, ConflictError
from nanotasks.settings import Settings, settings


def run_flower() -> NoReturn:
    """Run Flower until it is stopped, and exit.

    Raises `ConfigError` when it would be open to strangers or its address is none of this machine, `ConflictError`
    for a port in use.
    """
    config = settings()
    logs.configure(config.log_level, config.log_format)
    conf = asset("flower_config.py")
    runpy.run_path(str(conf))
    _require_free(config)
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        # Flower's own variables would bypass the check above.
        del os.environ[name]
    if not (config.flower_user and config.flower_password):
        # On loopback without a password Flower would still hide its API, which scripts on this machine read.
        os.environ["FLOWER_UNAUTHENTICATED_API"] = "true"
    app.start(["flower", f"--conf={conf}"])


def _require_free(config: Settings) -> None:
    """Flower itself ends with a traceback when it cannot listen."""
    host, port = config.flower_host, config.flower_port
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"Port {port} on {host} is in use.",
                why="Another Flower, or another program, listens there.",
                fix="Stop it, or set NANOTASKS_FLOWER_PORT to another port.",
            ) from error
        raise ConfigError(
            f"Flower cannot listen on {host}:{port}.",
            why=f"{error.strerror or error}.",
            fix="Set NANOTASKS_FLOWER_HOST and NANOTASKS_FLOWER_PORT to what this user may open.",
        ) from error
