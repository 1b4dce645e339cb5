"""The due time of a session is never later than its earliest due row."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import NewRow
from nanotasks.wake.due import announced, recompute

LATER_MS = 1_900_000_000_000


@pytest.fixture
def folder(central: Database, tmp_path: Path) -> SessionFolder:
    """A session `s1` with its files."""
    with central.write() as session:
        session.add(AgentGroup(id="ag", name="a", folder="a", created_at=0))
        session.flush()
        session.add(AgentSession(id="s1", agent_group_id="ag", route_key="k", created_at=0))
    made = SessionFolder.of(tmp_path, "ag", "s1")
    made.create()
    return made


@pytest.fixture
def inbound(folder: SessionFolder) -> Iterator[Inbound]:
    """Its inbound.db."""
    with open_inbound(folder) as opened:
        yield opened


def _row(message_id: str, due_ms: int | None = None) -> NewRow:
    return NewRow(message_id, "chat", "{}", now_ms(), process_after_ms=due_ms)


def _due(db: Database) -> tuple[int | None, int]:
    with db.read() as session:
        found = session.get_one(AgentSession, "s1")
        return found.next_due_at, found.due_version


def test_announcing_lowers_and_never_raises(central: Database, inbound: Inbound) -> None:
    """An earlier row counts at once, a later one changes the version only."""
    for due_ms, expected in [(LATER_MS, LATER_MS), (LATER_MS - 1000, LATER_MS - 1000), (LATER_MS, LATER_MS - 1000)]:
        with announced(central, inbound, "s1", due_ms):
            pass
        assert _due(central)[0] == expected
    assert _due(central)[1] == 3


def test_recompute_says_what_the_file_says(central: Database, inbound: Inbound) -> None:
    """0 for at once, an instant for later, None for nothing; settled rows do not count."""
    with announced(central, inbound, "s1"):
        inbound.insert([_row("m1"), _row("m2", LATER_MS)])
    assert recompute(central, inbound, "s1") == 0
    assert recompute(central, inbound, "s1", ["m1"]) == LATER_MS
    assert _due(central)[0] == LATER_MS
    inbound.complete(["m1", "m2"])
    assert recompute(central, inbound, "s1") is None
    assert _due(central)[0] is None


def test_an_announced_row_that_was_not_written_costs_one_look(central: Database, inbound: Inbound) -> None:
    """A crash before the commit leaves the session due; looking settles it."""
    with pytest.raises(RuntimeError), announced(central, inbound, "s1"):
        raise RuntimeError("killed")
    assert _due(central)[0] == 0
    assert recompute(central, inbound, "s1") is None
    assert _due(central)[0] is None


def test_a_recompute_that_was_held_up_changes_nothing(
    central: Database, folder: SessionFolder, inbound: Inbound, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that came between its reading and its writing stays announced."""
    with announced(central, inbound, "s1", LATER_MS):
        pass
    write = central.write_core
    arrived: list[str] = []

    def write_late() -> Any:
        if not arrived:
            arrived.append("m1")
            with open_inbound(folder) as other, announced(central, other, "s1"):
                other.insert([_row("m1")])
        return write()

    monkeypatch.setattr(central, "write_core", write_late)
    assert recompute(central, inbound, "s1") is None
    assert _due(central)[0] == 0


def test_many_writers_and_readers_leave_no_row_behind(central: Database, folder: SessionFolder) -> None:
    """However they meet, a due row is never hidden."""

    def write(number: int) -> None:
        for count in range(8):
            with open_inbound(folder) as other, announced(central, other, "s1"):
                other.insert([_row(f"m{number}-{count}")])

    def settle() -> None:
        for _ in range(12):
            with open_inbound(folder) as other:
                other.complete([name for name in other.open_ids() if name.endswith(("1", "3", "5"))])
                recompute(central, other, "s1")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    threads += [threading.Thread(target=settle) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _due(central)[0] == 0
