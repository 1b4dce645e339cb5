"""What an agent is started with."""

from __future__ import annotations

from pathlib import Path

from nanotasks.agents.start_spec import prepare, read_facts
from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.users import User
from tests.scene import Stage


def test_nothing_is_mounted_from_a_folder_that_an_agent_can_write(sqlite_central: Database, tmp_path: Path) -> None:
    """A link put there by another session of the agent would be followed by the daemon, and could lead anywhere."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    agent, chat = stage.agent(), stage.chat("c1")
    session_id = stage.session("s1", agent, chat).id
    with stage.db.write() as session:
        facts = read_facts(session, stage.settings, session_id)
    mounts = prepare(facts, stage.settings, "docker", "inst-1", 1).mounts
    writable = [Path(mount.source) for mount in mounts if not mount.read_only]
    assert writable
    below = [mount.source for mount in mounts for folder in writable if folder in Path(mount.source).parents]
    assert below == []


def test_the_clock_of_an_agent_is_the_users(sqlite_central: Database, tmp_path: Path) -> None:
    """Else the agent group's, else the installation's: what it is told and what it schedules go by the same zone."""
    stage = Stage.set_up(sqlite_central, tmp_path, timezone="Asia/Tokyo")
    session_id = stage.session("s1", stage.agent(), stage.chat("c1")).id

    def zone() -> str:
        with stage.db.write() as session:
            facts = read_facts(session, stage.settings, session_id)
        return prepare(facts, stage.settings, "process", "inst-1", 1).environment["TZ"]

    assert zone() == "Asia/Tokyo"
    with stage.db.write() as session:
        session.get_one(AgentGroup, "ag-andy").timezone = "Europe/Paris"
    assert zone() == "Europe/Paris"
    with stage.db.write() as session:
        session.add(User(id="scripted:c1", kind="scripted", created_at=1, timezone="America/Lima"))
    assert zone() == "America/Lima"
