"""Additional mounts, against the recorded behaviour of NanoClaw 2 (`tests/data/mounts.json`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanotasks.agents.mounts import allowed_mounts, allowlist_path, judge, read_allowlist
from nanotasks.domain.mounts import BUILT_IN_BLOCKED
from nanotasks.runtimes.contract import Mount
from nanotasks.settings import Settings

RECORDED = json.loads((Path(__file__).parents[2] / "data" / "mounts.json").read_text())
HEADER = RECORDED["header"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded tree of folders, files and links."""
    root = tmp_path_factory.mktemp("tree")
    for folder in HEADER["tree"]["dirs"]:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for file in HEADER["tree"]["files"]:
        (root / file).write_text("x")
    for link, target in HEADER["tree"]["symlinks"].items():
        (root / link).symlink_to(root / target)
    return root


def allowlist_file(root: Path, name: str) -> Path:
    config = HEADER["configs"][name]
    path = root / "allowlist.json"
    path.unlink(missing_ok=True)
    if config is not None:
        path.write_text(config if isinstance(config, str) else json.dumps(config).replace("$ROOT", str(root)))
    return path


@pytest.mark.parametrize(
    "case",
    [case for case in RECORDED["cases"] if "mount" in case],
    ids=lambda c: f"{c['config']}-{c['mount']['hostPath']}",
)
def test_recorded_behaviour(tree: Path, case: dict[str, Any]) -> None:
    """The same mounts are allowed, at the same place, and refused for the same reason."""
    request = json.loads(json.dumps(case["mount"]).replace("$ROOT", str(tree)))
    verdict = judge(request, read_allowlist(allowlist_file(tree, case["config"])), tree / "home", tree)
    expected = case["out"]
    assert (verdict.allowed, verdict.why, verdict.pattern) == (
        expected["allowed"],
        expected["why"],
        expected.get("pattern"),
    )
    if expected["allowed"]:
        assert verdict.real_path == expected["real_host_path"].replace("$ROOT", str(tree))
        assert (verdict.target, verdict.read_only) == (expected["container_path"], expected["readonly"])


def test_built_in_patterns() -> None:
    """What looks like a secret is blocked whatever the operator writes."""
    assert list(BUILT_IN_BLOCKED) == HEADER["builtin_blocked_patterns"]


def test_a_changed_allowlist_counts_at_the_next_start(tmp_path: Path) -> None:
    """The file is read each time, and an agent gets what it says then."""
    (tmp_path / "shared").mkdir()
    file = tmp_path / "allowlist.json"
    settings = Settings(data_dir=tmp_path / "data", mount_allowlist=str(file))
    request = {"hostPath": str(tmp_path / "shared"), "readonly": False}
    assert allowed_mounts(json.dumps([request]), settings) == ()
    file.write_text(json.dumps({"allowedRoots": [{"path": str(tmp_path)}], "blockedPatterns": []}))
    expected = Mount(tmp_path / "shared", "/workspace/extra/shared", read_only=True)
    assert allowed_mounts(json.dumps([request]), settings) == (expected,)
    file.write_text(json.dumps({"allowedRoots": [], "blockedPatterns": []}))
    assert allowed_mounts(json.dumps([request]), settings) == ()


def test_one_place_holds_one_mount(tmp_path: Path) -> None:
    """A second mount for the same place is left out, and so is what is no request; the agent starts all the same."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    file = tmp_path / "allowlist.json"
    file.write_text(json.dumps({"allowedRoots": [{"path": str(tmp_path)}], "blockedPatterns": []}))
    requests = [{"hostPath": str(tmp_path / name), "containerPath": "x"} for name in ("a", "b")]
    settings = Settings(data_dir=tmp_path / "data", mount_allowlist=str(file))
    assert [mount.source.name for mount in allowed_mounts(json.dumps([*requests, "nonsense"]), settings)] == ["a"]
    assert allowed_mounts("nonsense", settings) == allowed_mounts("{}", settings) == ()


def test_where_the_allowlist_is() -> None:
    """Outside the data directory, unless the operator says where."""
    assert allowlist_path(Settings()) == Path.home() / ".config" / "nanotasks" / "mount-allowlist.json"
    assert allowlist_path(Settings(mount_allowlist="~/mine.json")) == Path.home() / "mine.json"
