"""Runs every benchmark and prints one JSON object: the machine, and the figures by runtime."""

from __future__ import annotations

import itertools
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nanotasks import __version__
from nanotasks.errors import NanotasksError
from tests.benchmarks import conversation, embedded, inprocess, operations, schedule
from tests.benchmarks.stack import Stack


def main() -> int:
    """Measure; progress goes to stderr, the figures to stdout."""
    report: dict[str, Any] = {
        "nanotasks": __version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "in_process": _collect("in process", inprocess.measure()),
        "embedded": _collect("embedded", embedded.measure()),
    }
    for runtime in ("process", *(["docker"] if _docker_answers() else [])):
        with tempfile.TemporaryDirectory(prefix="nt-bench-") as directory, Stack(Path(directory), runtime) as stack:
            report[runtime] = _collect(runtime, itertools.chain(conversation.measure(stack), operations.measure(stack)))
    with tempfile.TemporaryDirectory(prefix="nt-bench-") as directory:
        report["scheduled_tasks"] = _collect("scheduled tasks", schedule.measure(Path(directory)))
    print(json.dumps(report, indent=2))
    return 0


def _collect(title: str, figures: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        for name, figure in figures:
            print(f"{title}: {name}: {json.dumps(figure)}", file=sys.stderr, flush=True)
            found[name] = figure
    except AssertionError as error:
        # What was measured until then is worth having.
        print(f"{title}: failed: {error}", file=sys.stderr, flush=True)
        found["failed"] = str(error)
    return found


def _docker_answers() -> bool:
    from nanotasks.runtimes.docker_client import new_client

    try:
        new_client(2.0).close()
    except NanotasksError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
