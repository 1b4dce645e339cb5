"""`nanotasks status`: the whole installation on one screen."""

from __future__ import annotations

from typing import Any

import typer

from nanotasks.errors import ConfigError
from nanotasks.ops.cli.central import open_central, sqlite_file
from nanotasks.ops.cli.output import is_json, relative, show_list, show_one, show_text
from nanotasks.ops.cli.root import Command
from nanotasks.settings import settings


def register(root: typer.Typer) -> None:
    """Add `status` to the command line."""
    root.command("status", cls=Command)(show_status)


def show_status() -> None:
    """Show hosts, queues, sessions and deliveries on one screen.

    Exits 0 as long as the central database answers, whatever the state is, and 69 when it does not.
    """
    from nanotasks.ops.status import status

    config = settings()
    file = sqlite_file(config)
    if file is not None and not file.exists():
        raise ConfigError(
            f"There is no installation in {config.data_dir} yet.",
            fix="Run `nanotasks up`, or `nanotasks db upgrade` to make the database alone.",
        )
    found = status(open_central(config), config)
    if is_json():
        show_one(found)
    else:
        _print(found)


def _print(found: dict[str, Any]) -> None:
    now, database, redis = found["now_at"], found["database"], found["redis"]
    rows = {
        "database": f"{database['url']}, schema {database['schema']}",
        "redis": _pairs(redis["queues"]) if redis["answers"] else "does not answer; signals wait for the sweeps",
        "groups": str(found["groups"]),
        "sessions": _pairs(found["sessions"]),
        "agents": f"{found['running_agents']} running",
        "events": _pairs(found["events"]),
        "routes": _pairs(found["routes"]),
        "deliveries": _pairs(found["deliveries"]),
        "leases": ", ".join(f"{one['name']} by {one['owner']}" for one in found["leases"]) or "none is held",
        "sweeps": ", ".join(f"{name} {age_s:.0f} s ago" for name, age_s in sorted(found["ticks_s"].items()))
        or "none has run",
        "oldest": ", ".join(
            f"{name.removesuffix('_at').replace('_', ' ')} {relative(at, now)}"
            for name, at in found["oldest"].items()
            if at is not None
        )
        or "nothing waits",
    }
    show_one(rows)
    if found["hosts"]:
        show_text("")
    show_list(
        found["hosts"],
        ("id=HOST", "state", "heartbeat_at", "running_agents=AGENTS", "capacity"),
        empty="No host has reported yet: start one with `nanotasks up` or `nanotasks worker`.",
    )


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
