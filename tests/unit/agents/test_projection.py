"""What an agent may address is read in one go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sqlalchemy import event

from nanotasks.agents.projection import destinations_of, project_group
from nanotasks.central import Database
from nanotasks.session.rows import Destination, DestinationType
from tests.scene import Stage


def test_many_destinations_cost_no_more_queries(sqlite_central: Database, tmp_path: Path) -> None:
    """By name, without those whose target is gone; as many questions for twenty chats as for one."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    stage.agent("andy")
    stage.agent("bob")
    stage.allow("ag-andy", "bob", "agent", "ag-bob")
    stage.allow("ag-andy", "gone", "channel", "mg-gone")
    for number in range(20):
        stage.chat(f"c{number}")
        stage.allow("ag-andy", f"room{number:02}", "channel", f"mg-c{number}")
    asked: list[str] = []
    with sqlite_central.read() as session:
        event.listen(session.get_bind(), "before_cursor_execute", lambda *given: asked.append(given[2]))
        found = destinations_of(session, "ag-andy")
    assert [one.name for one in found] == ["bob", *(f"room{number:02}" for number in range(20))]
    assert found[0] == Destination("bob", DestinationType.AGENT, display_name="bob", agent_group_id="ag-bob")
    assert (found[1].type, found[1].platform_id) == (DestinationType.CHANNEL, "c0")
    assert sum(statement.startswith("SELECT") for statement in asked) == 2


def test_a_change_is_shown_to_the_agents_that_run(sqlite_central: Database, tmp_path: Path) -> None:
    """Those that sleep are told when they start, so a change costs nothing for them; those elsewhere are not ours."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    andy, bob = stage.agent("andy"), stage.agent("bob")
    awake, asleep, other = stage.session("awake", andy), stage.session("asleep", andy), stage.session("other", bob)
    for one in (awake, other):
        stage.agent_ran(one)
    stage.allow(andy, "bob", "agent", bob)
    assert project_group(stage.db, stage.settings, andy) == [awake.id]
    names = "SELECT name FROM destinations"
    assert awake.inbound(names) == [("bob",)]
    assert (asleep.inbound(names), other.inbound(names)) == ([], [])
    assert project_group(stage.db, replace(stage.settings, host_id="there"), andy) == []
