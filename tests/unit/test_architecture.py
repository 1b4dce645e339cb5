"""Imports point one way, and the few doors to Celery, Redis, Docker and the environment stay the only ones."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nanotasks"

BASE = {"errors", "clock", "ids", "owners", "settings", "assets", "logs", "paths", "sender", "faults", "domain", ""}
STATE = {"central", "session", "channels", "runtimes", "signals"}
SERVICES = {"intake", "wake", "deliver", "sweep", "schedule", "approve", "agents", "people", "watch"}

# What each layer may import from the package, besides itself.
ALLOWED = {
    "domain": {"errors", "clock", "domain"},
    "central": BASE,
    "session": BASE,
    "signals": BASE | {"celery_app"},
    "runtimes": BASE,
    "channels": BASE | {"central", "signals"},
    "services": BASE | STATE | SERVICES,
    "tasks": BASE | STATE | SERVICES | {"celery_app"},
    "celery_app": BASE,
    "gateway": BASE | STATE | SERVICES,
    "testing": BASE | STATE,
}


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "_assets" not in path.parts]


def layer(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    first = relative.parts[0].removesuffix(".py")
    if path.name == "tasks.py":
        return "tasks"
    return "services" if first in SERVICES else first


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if node.module == "nanotasks" else (node.module or "")


def outside(path: Path, *packages: str) -> bool:
    return any(name.split(".")[0] in packages for name in imports(path))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """ops, gateway, tasks → services → central, session, channels, runtimes, signals → domain → nothing."""
    here = layer(path)
    if here not in ALLOWED:
        return
    for name in imports(path):
        if not name.startswith("nanotasks.") or name == "nanotasks.__version__":
            continue
        target = name.split(".")[1]
        assert target in ALLOWED[here] or target == here, f"{here} must not import {name}"


def test_only_signals_talks_to_redis() -> None:
    """Redis carries signals and nothing else: one module knows it (besides Celery itself)."""
    users = {path.relative_to(PACKAGE).as_posix() for path in modules() if outside(path, "redis", "valkey")}
    assert users <= {"signals.py"}


def test_celery_stays_in_the_tasks() -> None:
    """Services and state know nothing of Celery."""
    users = {path.relative_to(PACKAGE).as_posix() for path in modules() if outside(path, "celery", "kombu", "billiard")}
    for name in users:
        assert name.startswith("ops/") or name.endswith("tasks.py") or name in {"celery_app.py", "signals.py"}, name


def test_only_settings_reads_the_environment() -> None:
    """Every setting is in one place."""
    for path in modules():
        name = path.relative_to(PACKAGE).as_posix()
        if name in {"settings.py", "testing.py"}:
            continue
        assert 'environ["NANOTASKS_' not in path.read_text(), name
        assert 'environ.get("NANOTASKS_' not in path.read_text(), name


def test_the_runner_stands_alone() -> None:
    """The agent runner imports the standard library and itself, nothing of the host."""
    import sys

    for path in (ROOT / "container" / "agent_runner").rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "agent_runner", f"{path.name} imports {name}"


def test_pure_rules_do_no_input_or_output() -> None:
    """domain/ decides; it opens nothing, sleeps never and knows no clock but the one it is handed."""
    for path in (PACKAGE / "domain").rglob("*.py"):
        forbidden = {"os", "socket", "subprocess", "sqlite3", "sqlalchemy", "time", "threading", "random", "shutil"}
        assert not outside(path, *forbidden), path.name
