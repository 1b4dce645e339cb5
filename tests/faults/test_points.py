"""Every crash point is listed and reached, and a kill -9 there loses, doubles and reorders nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from nanotasks.faults import POINTS
from tests.faults import plan
from tests.faults.cases import run_case
from tests.faults.checker import lines
from tests.faults.platform import Platform
from tests.faults.world import QUICK, World
from tests.installation import ROOT


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Platform().open() as platform, World(tmp_path_factory.mktemp("world"), platform, **QUICK).running() as up:
        yield up


def literal_points() -> set[str]:
    """The arguments of every `faults.point(…)` in the code."""
    found = set()
    for path in [*(ROOT / "nanotasks").rglob("*.py"), *(ROOT / "container").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.point":
                found.add(ast.literal_eval(node.args[0]))
    return found


def test_every_point_is_listed() -> None:
    """The list in `nanotasks/faults.py` has every point of the code, and no other."""
    assert literal_points() == set(POINTS)


@pytest.mark.faults
@pytest.mark.parametrize("case", [*plan.killed_once(), *plan.failing()], ids=lambda case: case.name)
def test_nothing_is_lost(world: World, case: plan.Case) -> None:
    """A process dies or fails at a point: it is reached, and all promises hold when work has come to rest."""
    outcome = run_case(world, case.fault, seed=1, crash=case.crash)
    assert outcome.reached, f"{case.fault} was never reached"
    assert not outcome.violations, f"{case.fault}, seed 1:\n{lines(outcome.violations)}"
    assert outcome.recovered_s < 30
