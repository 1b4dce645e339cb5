"""A stage on each database, with a channel that does as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks.central import Database
from nanotasks.testing import ScriptedSender, channel_of
from tests.scene import Bells, Speaker, Stage


@pytest.fixture
def bells() -> Bells:
    return Bells()


@pytest.fixture
def sender() -> Iterator[ScriptedSender]:
    scripted = ScriptedSender()
    with channel_of(scripted):
        yield scripted


@pytest.fixture
def stage(central: Database, tmp_path: Path) -> Stage:
    return Stage.set_up(central, tmp_path)


@pytest.fixture
def andy(stage: Stage) -> Speaker:
    return stage.session("andy", stage.agent("andy"), stage.chat("family"))
