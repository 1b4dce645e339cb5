"""What an agent is started with."""

from __future__ import annotations

from pathlib import Path

from nanotasks.agents.start_spec import prepare, read_facts
from nanotasks.central import Database
from tests.scene import Stage


def test_nothing_is_mounted_from_a_folder_that_an_agent_can_write(sqlite_central: Database, tmp_path: Path) -> None:
    """A link put there by another session of the agent would be followed by the daemon, and could lead anywhere."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    agent, chat = stage.agent(), stage.chat("c1")
    session_id = stage.session("s1", agent, chat).id
    with stage.db.write() as session:
        facts = read_facts(session, session_id)
    mounts = prepare(facts, stage.settings, "docker", "inst-1", 1).mounts
    writable = [Path(mount.source) for mount in mounts if not mount.read_only]
    assert writable
    below = [mount.source for mount in mounts for folder in writable if folder in Path(mount.source).parents]
    assert below == []
