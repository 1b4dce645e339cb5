"""The files in deploy/ fit the software they start."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from nanotasks.settings import Settings, env_name, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KNOWN = {env_name(spec.name) for spec in dataclasses.fields(Settings)}
COMMANDS = {"up", "gateway", "worker", "beat", "flower", "db"}
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


def ours() -> dict[str, Any]:
    return {name: service for name, service in compose()["services"].items() if name not in {"postgres", "redis"}}


def test_compose_sets_only_known_settings() -> None:
    """A misspelt variable would stop the process at its start."""
    for service in ours().values():
        assert {name for name in service["environment"] if name.startswith("NANOTASKS_")} <= KNOWN


def test_compose_starts_only_known_commands() -> None:
    """Every service of ours runs a command of the command line."""
    assert {service["command"][0] for service in ours().values()} <= COMMANDS


def test_compose_is_the_two_host_shape() -> None:
    """Two workers with a host id and a data directory each share one database and one Redis."""
    workers = [service["environment"] for name, service in ours().items() if name.startswith("worker-")]
    assert len({worker["NANOTASKS_HOST_ID"] for worker in workers}) == 2
    assert len({worker["NANOTASKS_DATA_DIR"] for worker in workers}) == 2
    assert len({service["environment"]["NANOTASKS_DATABASE_URL"] for service in ours().values()}) == 1
    assert len({service["environment"]["NANOTASKS_REDIS_URL"] for service in ours().values()}) == 1


def test_a_worker_sees_its_data_under_the_path_of_the_machine() -> None:
    """The Docker daemon resolves an agent's mounts outside the worker's container."""
    for name, service in ours().items():
        if name.startswith("worker-"):
            data = service["environment"]["NANOTASKS_DATA_DIR"]
            assert f"{data}:{data}" in service["volumes"]


def test_nothing_listens_to_the_world_by_default() -> None:
    """Published ports are bound to loopback, and no password has a default."""
    text = (DEPLOY / "compose.yaml").read_text()
    for service in compose()["services"].values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not re.search(r"(PASSWORD|SECRET):-", text)


def test_the_example_environment_names_what_compose_needs() -> None:
    """Every variable of the Compose file stands in deploy/example.env."""
    wanted = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text()))
    offered = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "example.env").read_text(), flags=re.MULTILINE))
    assert wanted <= offered


def test_the_example_environment_of_the_units_loads() -> None:
    """With the lines that are commented out, too: each is a known setting with a value that is taken."""
    text = (DEPLOY / "systemd" / "example.env").read_text()
    found = dict(re.findall(r"^#?(NANOTASKS_[A-Z_]+)=(.*)$", text, flags=re.MULTILINE))
    assert len(found) > 5
    load(found)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_units_start_known_commands(unit: Path) -> None:
    """A unit runs a command of the command line, restarts it, and a worker's agents outlive it."""
    text = unit.read_text()
    command = re.search(r"^ExecStart=\S+ -m nanotasks (\w+)", text, flags=re.MULTILINE)
    assert command and command[1] in COMMANDS
    assert "Restart=always" in text
    assert ("KillMode=process" in text) == (command[1] == "worker")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    """systemd's own checker finds nothing wrong but the program that is not installed here."""
    name = unit.name.replace("@.", "@1.")
    (tmp_path / name).write_text(unit.read_text().replace("/opt/nanotasks/.venv/bin/python", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    complaints = [line for line in result.stderr.splitlines() if name in line and "Documentation" not in line]
    assert complaints == []
