"""Removes guards in turn, each in a copy of the project, and says whether the tests notice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.guards import Guard
from tests.installation import ROOT

_COPIED = ("nanotasks", "container", "migrations", "tests", "deploy", "pyproject.toml", "flower_config.py", "README.md")


@contextmanager
def copy_of_project() -> Iterator[Path]:
    """The project's files in a directory of their own."""
    with tempfile.TemporaryDirectory(prefix="nt-mutated-") as name:
        copy = Path(name)
        for part in _COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__", "_assets"))
            else:
                shutil.copy(source, copy / part)
        yield copy


def remove(guard: Guard, copy: Path) -> None:
    """Edit the guard out. Raises `AssertionError` when its text is not there exactly once: then the list is stale."""
    path = copy / guard.file
    text = path.read_text()
    assert text.count(guard.old) == 1, f"{guard.name}: its text stands {text.count(guard.old)} times in {guard.file}"
    path.write_text(text.replace(guard.old, guard.new))


def notices(guard: Guard, copy: Path, *, timeout_s: float = 300.0) -> tuple[bool, str]:
    """Whether the guard's tests fail in that copy, and the end of what they say."""
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{copy / 'container'}", "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *guard.tests]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return True, "it hangs"
    # 1: tests failed. Anything else is no verdict on the guard.
    return done.returncode == 1, done.stdout[-600:]
