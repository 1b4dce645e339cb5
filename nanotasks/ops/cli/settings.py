"""`nanotasks settings`: every setting with its value."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import typer

from nanotasks.ops.cli.output import show_list
from nanotasks.ops.cli.root import Command
from nanotasks.settings import Settings, describe, env_name, settings

_MASK = "***"


def register(root: typer.Typer) -> None:
    """Add `settings` to the command line."""
    root.command("settings", cls=Command)(list_settings)


def list_settings(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="WORD", help="Only settings whose name or meaning has these words."),
    ] = None,
) -> None:
    """List the settings with their values. Each is an environment variable; secrets are masked."""
    config = settings()
    rows = [_row(config, described) for described in describe()]
    wanted = [word.lower() for word in words or []]
    rows = [row for row in rows if all(word in f"{row['env']} {row['meaning']}".lower() for word in wanted)]
    show_list(rows, ("env=SETTING", "value", "unit", "meaning"), empty="No setting has these words.")


def _row(config: Settings, described: dict[str, str]) -> dict[str, Any]:
    spec = next(spec for spec in fields(Settings) if env_name(spec.name) == described["env"])
    value = config.environment()[described["env"]]
    return {
        "env": described["env"],
        "value": _MASK if spec.metadata["secret"] and value else value,
        "default": described["default"],
        "unit": described["unit"],
        "meaning": described["meaning"],
    }
