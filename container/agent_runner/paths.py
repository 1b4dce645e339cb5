"""Where the session is. Inside a container that is `/workspace`; a child process is told by its environment.

| variable | meaning | default |
|---|---|---|
| `NANOTASKS_WORKSPACE` | the session's workspace folder | `/workspace` |
| `NANOTASKS_AGENT_DIR` | the agent group's folder, also the working directory | `<workspace>/agent` |
| `NANOTASKS_CONTAINER_CONFIG` | the agent group's configuration | `<agent dir>/container.json` |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class Workspace(NamedTuple):
    """The folders and files of one session, as absolute paths."""

    root: str
    agent_dir: str
    config: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Workspace:
        root = os.path.abspath(environ.get("NANOTASKS_WORKSPACE") or "/workspace")
        agent_dir = os.path.abspath(environ.get("NANOTASKS_AGENT_DIR") or os.path.join(root, "agent"))
        config = environ.get("NANOTASKS_CONTAINER_CONFIG") or os.path.join(agent_dir, "container.json")
        return cls(root, agent_dir, os.path.abspath(config))

    @property
    def inbound(self) -> str:
        return os.path.join(self.root, "inbound.db")

    @property
    def outbound(self) -> str:
        return os.path.join(self.root, "outbound.db")

    @property
    def heartbeat(self) -> str:
        return os.path.join(self.root, ".heartbeat")

    @property
    def outbox(self) -> str:
        return os.path.join(self.root, "outbox")

    def additional_directories(self) -> tuple[str, ...]:
        """The folders below `extra/`, which a model may read besides its own."""
        extra = os.path.join(self.root, "extra")
        try:
            with os.scandir(extra) as entries:
                return tuple(sorted(entry.path for entry in entries if entry.is_dir()))
        except OSError:
            return ()
