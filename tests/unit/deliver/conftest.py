"""A stage with one agent, its chat and its session, and a channel that does as it is told."""

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
    """The sender of the channel `scripted`, which knows our keys."""
    scripted = ScriptedSender()
    with channel_of(scripted):
        yield scripted


@pytest.fixture
def stage(sqlite_central: Database, tmp_path: Path) -> Stage:
    """This host, on SQLite."""
    return Stage.set_up(sqlite_central, tmp_path)


@pytest.fixture
def any_stage(central: Database, tmp_path: Path) -> Stage:
    """This host, on SQLite and on PostgreSQL."""
    return Stage.set_up(central, tmp_path)


@pytest.fixture
def andy(stage: Stage) -> Speaker:
    """Andy's session in the chat `family`."""
    return stage.session("andy", stage.agent("andy"), stage.chat("family"))
