"""A session whose files are damaged, missing or replaced: it is shown as in trouble, and holds up no other."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanotasks.central import Database
from nanotasks.clock import now_ms
from nanotasks.deliver.service import deliver_session
from nanotasks.errors import NanotasksError
from nanotasks.sweep.containers import sweep
from nanotasks.sweep.due import due_signals
from nanotasks.wake import service
from nanotasks.wake.here import State
from tests.household import Household
from tests.scene import Bells

GIGABYTE = 1 << 30
CLAIM_ANY = "ack('m1', 'processing'); wait()"


@pytest.fixture
def house(sqlite_central: Database, tmp_path: Path) -> Iterator[Household]:
    """A host whose agents are scripts."""
    household = Household.set_up(sqlite_central, tmp_path, outbound_read_timeout_s=0.5)
    yield household
    household.clear()


def _nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)


def _cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _missing(path: Path) -> None:
    path.unlink()


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path) -> None:
    target = path.with_name("elsewhere.db")
    path.rename(target)
    path.symlink_to(target)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, GIGABYTE)


def _hot(path: Path) -> None:
    """What a writer leaves that dies in the middle of a commit."""
    child = os.fork()
    if child == 0:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA cache_size = 2")
        db.execute("CREATE TABLE filler (x)")
        db.execute("BEGIN")
        for _ in range(100):
            db.execute("INSERT INTO filler VALUES (?)", ("x" * 5000,))
        os._exit(0)
    os.waitpid(child, 0)
    assert path.with_name(path.name + "-journal").stat().st_size > 0


DAMAGES = [_nonsense, _cut_off, _empty, _missing, _folder, _link, _dangling, _loop, _pipe, _sparse, _hot]
# These are mended by whoever opens the file next, or are no damage to a file of the host's own.
MENDED = {("inbound", _hot), ("inbound", _link), ("outbound", _hot)}


def _name(one: object) -> str:
    return getattr(one, "__name__", str(one)).strip("_")


def _path(house: Household, session_id: str, which: str) -> Path:
    folder = house.folders[session_id]
    return folder.inbound_db if which == "inbound" else folder.outbound_db


def _pass(house: Household) -> None:
    """One pass of every sweep, and what it rings for, as the workers would do it."""
    rings = [*sweep(house.here), *due_signals(house.here.db, house.here.settings)]
    for kind, session_id, *_ in rings:
        if kind == "wake":
            service.wake(house.here, session_id)
        elif kind == "deliver":
            try:
                deliver_session(house.here.db, house.here.settings, session_id, bells=Bells())
            except NanotasksError:
                pass  # the task says so in the log, and is tried again


@pytest.mark.parametrize("damage", DAMAGES, ids=_name)
@pytest.mark.parametrize("which", ["inbound", "outbound"])
def test_a_session_that_cannot_start_is_put_off_alone(
    house: Household, which: str, damage: Callable[[Path], None]
) -> None:
    """Its trouble stands on the session, the pass goes on to the others, and when the file is mended so does work."""
    poisoned, healthy = house.session("poisoned"), house.session("healthy")
    house.due(poisoned)
    house.due(healthy)
    path = _path(house, poisoned, which)
    good = path.with_name("good")
    shutil.copy(path, good)
    damage(path)
    _pass(house)
    house.told(healthy)
    record = house.record(poisoned)
    if (which, damage) in MENDED:
        assert record.wake_error is None
        house.told(poisoned)
        return
    assert record.wake_failures == 1
    assert record.wake_retry_at is not None
    assert "bound.db" in (record.wake_error or "")
    assert house.runtime.find(poisoned) is None
    assert service.wake(house.here, poisoned).state is State.LATER
    _mend(path, good)
    house.change(poisoned, wake_retry_at=None)
    assert service.wake(house.here, poisoned).state is State.STARTED
    house.told(poisoned)
    assert sweep(house.here) == []


def _mend(path: Path, good: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    path.with_name(path.name + "-journal").unlink(missing_ok=True)
    good.rename(path)


@pytest.mark.parametrize("damage", DAMAGES, ids=_name)
@pytest.mark.parametrize("which", ["inbound", "outbound"])
def test_damage_under_a_running_agent_holds_up_no_other(
    house: Household, which: str, damage: Callable[[Path], None]
) -> None:
    """The sweep still stops another agent that is stuck, and this one when it is; both come to rest."""
    house.runtime.script = CLAIM_ANY
    sessions = [house.session("poisoned"), house.session("stuck")]
    for session_id in sessions:
        house.due(session_id)
        assert service.wake(house.here, session_id).state is State.STARTED
        house.told(session_id)
        live = house.instances(session_id)[0]
        house.change_instance(live.id, started_at=now_ms() - 2_000_000)
        house.says(session_id, "UPDATE processing_ack SET status_changed = datetime('now', '-1999 seconds')")
    damage(_path(house, sessions[0], which))
    _pass(house)
    _pass(house)
    for session_id in sessions:
        assert house.instances(session_id)[0].ended_at is not None, session_id
        assert house.runtime.find(session_id) is None
    assert house.row(sessions[1]).tries == 1


def test_an_agent_that_cannot_be_heard_is_shown(house: Household) -> None:
    """It beats, so it lives on; that nobody can read what it says stands on its session for as long as that lasts."""
    session_id = house.session()
    house.due(session_id)
    assert service.wake(house.here, session_id).state is State.STARTED
    house.told(session_id)
    path = house.folders[session_id].outbound_db
    path.rename(path.with_name("good"))
    _pass(house)
    assert "outbound.db" in (house.record(session_id).wake_error or "")
    assert house.runtime.is_alive(session_id)
    path.with_name("good").rename(path)
    house.change_instance(house.instances(session_id)[0].id, started_at=now_ms() - 20_000)
    _pass(house)
    assert house.record(session_id).wake_error is None


@pytest.mark.parametrize("name", ["inbox", "outbox", "workspace"])
def test_folders_replaced_by_links_lead_nowhere(house: Household, tmp_path: Path, name: str) -> None:
    """The host follows none of them, the session's trouble is its own, and nothing outside is touched."""
    poisoned, healthy = house.session("poisoned"), house.session("healthy")
    for session_id in (poisoned, healthy):
        house.due(session_id)
    outside = tmp_path / "outside"
    folder = house.folders[poisoned]
    path = {"inbox": folder.inbox, "outbox": folder.outbox, "workspace": folder.workspace}[name]
    path.rename(outside)
    path.symlink_to(outside)
    before = {one.name: one.stat(follow_symlinks=False).st_mtime_ns for one in outside.iterdir()}
    _pass(house)
    house.told(healthy)
    assert "is not a folder" in (house.record(poisoned).wake_error or "")
    assert {one.name: one.stat(follow_symlinks=False).st_mtime_ns for one in outside.iterdir()} == before


@pytest.mark.parametrize("where", ["file", "missing"])
def test_a_session_folder_that_is_none_is_its_own_trouble(house: Household, where: str) -> None:
    """Somebody removed it, or put a file in its place, while its agent ran."""
    house.runtime.script = CLAIM_ANY
    poisoned, healthy = house.session("poisoned"), house.session("healthy")
    house.due(poisoned)
    assert service.wake(house.here, poisoned).state is State.STARTED
    house.told(poisoned)
    shutil.rmtree(house.folders[poisoned].root)
    if where == "file":
        house.folders[poisoned].root.write_text("")
    house.change_instance(house.instances(poisoned)[0].id, started_at=now_ms() - 2_000_000)
    house.due(healthy)
    house.runtime.script = "wait()"
    _pass(house)
    _pass(house)
    house.told(healthy)
    assert house.instances(poisoned)[0].ended_at is not None
    assert house.runtime.find(poisoned) is None
    assert house.record(poisoned).wake_error
