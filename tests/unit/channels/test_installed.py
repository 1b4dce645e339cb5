"""Channels that other packages bring."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks.channels import registry

MODULE = """
from nanotasks.channels.contract import Adapter, Capabilities

PIGEON = Adapter("pigeon", lambda settings: Capabilities())
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with a channel, one that names another type, and one that cannot be imported."""
    (tmp_path / "nt_pigeons.py").write_text(MODULE)
    info = tmp_path / "nt_pigeons-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nt-pigeons\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[nanotasks.channels]\npigeon = nt_pigeons:PIGEON\nowl = nt_pigeons:PIGEON\nbroken = nt_nowhere:X\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()
    registry.unregister("pigeon")
    sys.modules.pop("nt_pigeons", None)


@pytest.mark.usefixtures("package")
def test_a_package_brings_a_channel_and_a_broken_one_stops_nothing() -> None:
    """Entry points of the group are channels; what does not load is left out."""
    known = registry.adapters()
    assert known["pigeon"].channel_type == "pigeon"
    assert {"terminal", "file", "webhook"} <= set(known)
    assert not {"owl", "broken"} & set(known)
