"""Whose agents are asked whether all that they wrote was taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nanotasks.central import Database
from nanotasks.central.hosts import Host
from nanotasks.clock import now_ms
from nanotasks.runtimes.process import ProcessRuntime
from nanotasks.sweep.unheard import unheard
from nanotasks.wake.here import Here
from tests.scene import HOST, Stage

MINUTE_MS = 60_000


def test_what_was_written_on_another_host_is_found_after_the_move(sqlite_central: Database, tmp_path: Path) -> None:
    """That host may have died before it looked; where storage is not shared, nobody comes from elsewhere."""
    stage = Stage.set_up(sqlite_central, tmp_path)
    with stage.db.write() as session:
        session.add(Host(id="gone", heartbeat_at=1, created_at=1))
    andy, bob = stage.agent("andy"), stage.agent("bob", host_id="gone")
    chat = stage.chat("c")
    stage.allow(andy, "family", "channel", chat)
    for name, agent, host_id, ago_ms in (
        ("here", andy, HOST, 1_000),
        ("live", andy, HOST, None),
        ("long-ago", andy, HOST, 5 * MINUTE_MS),
        ("moved", andy, "gone", 5 * MINUTE_MS),
        ("moved-long-ago", andy, "gone", 15 * MINUTE_MS),
        ("elsewhere", bob, HOST, 1_000),
    ):
        speaker = stage.session(name, agent, chat)
        speaker.say("well", to="family")
        stage.agent_ran(speaker, host_id=host_id, ended_ago_ms=ago_ms)
    runtime = ProcessRuntime(tmp_path)
    local = Here(stage.db, stage.settings, runtime, lambda _name: runtime)
    shared = replace(local, settings=replace(stage.settings, shared_dir=str(stage.settings.data_dir)))
    since = now_ms() - MINUTE_MS
    assert sorted(unheard(local, since)) == ["sess-here", "sess-live"]
    assert sorted(unheard(shared, since)) == ["sess-here", "sess-live", "sess-moved"]
