"""`nanotasks metrics`: the figures that `/metrics` serves."""

from __future__ import annotations

import sys

import typer

from nanotasks.ops.cli.central import open_central
from nanotasks.ops.cli.output import is_json, show_json
from nanotasks.ops.cli.root import Command
from nanotasks.settings import settings


def register(root: typer.Typer) -> None:
    """Add `metrics` to the command line."""
    root.command("metrics", cls=Command)(show_metrics)


def show_metrics() -> None:
    """Print the metrics as Prometheus reads them: what `/metrics` of every gateway serves.

    They are read from the central database, so they can be printed when nothing else runs.
    """
    from nanotasks.watch.exposition import as_rows, exposition

    db = open_central(settings())
    if is_json():
        show_json(as_rows(db))
    else:
        sys.stdout.write(exposition(db))
