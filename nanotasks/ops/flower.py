"""`nanotasks flower`: the live view of workers, tasks and retries."""

from __future__ import annotations

import os
import runpy
from typing import NoReturn

from nanotasks import logs
from nanotasks.assets import asset
from nanotasks.celery_app import app
from nanotasks.settings import settings


def run_flower() -> NoReturn:
    """Run Flower until it is stopped, and exit. Raises `ConfigError` when it would be open to strangers."""
    config = settings()
    logs.configure(config.log_level, config.log_format)
    conf = asset("flower_config.py")
    runpy.run_path(str(conf))
    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        # Flower's own variables would bypass the check above.
        del os.environ[name]
    if not (config.flower_user and config.flower_password):
        # On loopback without a password Flower would still hide its API, which scripts on this machine read.
        os.environ["FLOWER_UNAUTHENTICATED_API"] = "true"
    app.start(["flower", f"--conf={conf}"])
