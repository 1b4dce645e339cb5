"""This host as the process at hand sees it: its database, its settings, its runtimes."""

from __future__ import annotations

from nanotasks.central import database
from nanotasks.runtimes.select import runtime, runtime_named
from nanotasks.settings import Settings
from nanotasks.wake.here import Here


def this_host(config: Settings) -> Here:
    """What the wake service and the sweep over agents need."""
    return Here(database(config), config, runtime(config), lambda name: runtime_named(name, config))
