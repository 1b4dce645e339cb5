"""Where the files of a session are, and that making them survives anything."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nanotasks.errors import ConfigError, HostileFileError, InvalidError
from nanotasks.session import SessionFolder, open_inbound, open_outbound
from tests.unit.session.conftest import names


def test_a_new_folder_has_both_sides(folder: SessionFolder) -> None:
    """host/ holds inbound.db and inbox/, workspace/ outbound.db, outbox/ and two relative links; no heartbeat yet."""
    assert folder.root.parts[-3:] == ("sessions", "ag-1", "sess-1")
    assert names(folder.root) == ["host", "workspace"]
    assert names(folder.host) == ["inbound.db", "inbox"]
    assert names(folder.workspace) == ["inbound.db", "inbox", "outbound.db", "outbox"]
    assert (folder.workspace / "inbound.db").readlink() == Path("../host/inbound.db")
    assert (folder.workspace / "inbox").readlink() == Path("../host/inbox")
    assert (folder.workspace / "inbound.db").samefile(folder.inbound_db)


def test_the_databases_are_whole_and_use_rollback_journals(folder: SessionFolder) -> None:
    """Both pass SQLite's check, and neither is in WAL mode."""
    for path in (folder.inbound_db, folder.outbound_db):
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
        connection.close()


def test_creating_again_changes_nothing(folder: SessionFolder) -> None:
    """What is there is left alone."""
    before = {path: path.stat().st_ino for path in folder.root.rglob("*")}
    folder.create()
    assert {path: path.stat().st_ino for path in folder.root.rglob("*")} == before


def test_creators_may_meet(tmp_path: Path) -> None:
    """Several at once make one folder."""
    folder = SessionFolder.of(tmp_path, "ag-1", "sess-1")
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(folder.create) for _ in range(16)]:
            done.result()
    assert names(folder.root) == ["host", "workspace"]
    with open_inbound(folder) as inbound, open_outbound(folder) as outbound:
        assert (inbound.max_seq(), outbound.max_rowid()) == (0, 0)


KILLED_CREATOR = """
import os, pathlib, sys
from nanotasks.session import SessionFolder, open_inbound, open_outbound

def child(folder, last_step):
    steps = 0
    def hook(event, arguments):
        nonlocal steps
        if event in {"os.mkdir", "os.rename", "os.symlink", "os.remove", "open"}:
            steps += 1
            if steps > last_step:
                os._exit(9)
    sys.addaudithook(hook)
    folder.create()
    os._exit(0)

folder = SessionFolder.of(pathlib.Path(sys.argv[1]), "warm", "up")
folder.create()
for last_step in range(1000):
    folder = SessionFolder.of(pathlib.Path(sys.argv[1]), "ag", f"sess-{last_step}")
    pid = os.fork()
    if pid == 0:
        child(folder, last_step)
    _, status = os.waitpid(pid, 0)
    folder.create()
    assert sorted(os.listdir(folder.root)) == ["host", "workspace"], os.listdir(folder.root)
    with open_inbound(folder) as inbound, open_outbound(folder) as outbound:
        assert (inbound.max_seq(), outbound.max_rowid()) == (0, 0)
    if status == 0:
        print(last_step)
        break
"""


def test_a_creator_killed_at_any_step_is_followed_by_another(tmp_path: Path) -> None:
    """Whatever was done, creating again finishes it and leaves no temporary files."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_CREATOR, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 10


def test_a_removed_outbound_db_is_not_made_again(folder: SessionFolder) -> None:
    """What the agent said is gone with it: that is for an operator to know."""
    folder.outbound_db.unlink()
    with pytest.raises(HostileFileError, match=r"outbound\.db of the session sess-1 is gone"):
        folder.create()
    assert not folder.outbound_db.exists()


def test_links_that_the_agent_replaced_are_set_right(folder: SessionFolder) -> None:
    """A file, a folder or another link in their place is removed; nothing it leads to is touched."""
    elsewhere = folder.root.parent / "precious"
    elsewhere.write_text("precious")
    (folder.workspace / "inbound.db").unlink()
    (folder.workspace / "inbound.db").symlink_to(elsewhere)
    (folder.workspace / "inbox").unlink()
    (folder.workspace / "inbox" / "deep").mkdir(parents=True)
    (folder.workspace / "inbox" / "link").symlink_to(elsewhere)
    folder.create()
    assert (folder.workspace / "inbound.db").readlink() == Path("../host/inbound.db")
    assert (folder.workspace / "inbox").readlink() == Path("../host/inbox")
    assert elsewhere.read_text() == "precious"


def test_the_host_never_follows_the_link_in_the_workspace(folder: SessionFolder, tmp_path: Path) -> None:
    """Another database behind `workspace/inbound.db` is not the one that the host writes."""
    other = SessionFolder.of(tmp_path, "ag-2", "sess-2")
    other.create()
    (folder.workspace / "inbound.db").unlink()
    (folder.workspace / "inbound.db").symlink_to(other.inbound_db)
    with open_inbound(folder) as inbound:
        inbound.set_session_routing("terminal", "p", None)
    with sqlite3.connect(other.inbound_db) as connection:
        assert connection.execute("SELECT count(*) FROM session_routing").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("name", ["outbox", "workspace", "host"])
def test_a_link_in_place_of_a_folder_is_refused(folder: SessionFolder, tmp_path: Path, name: str) -> None:
    """No file is made behind it."""
    target = folder.workspace / name if name == "outbox" else folder.root / name
    target.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostileFileError, match="is not a folder"):
        folder.create()
    assert names(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a\\b", "a\0b", ".claude-shared", "../x", "a\nb", "x" * 201])
def test_an_id_that_is_no_plain_file_name_is_refused(tmp_path: Path, bad: str) -> None:
    """It becomes a part of a path, so it may not lead out of it."""
    with pytest.raises(InvalidError):
        SessionFolder.of(tmp_path, bad, "sess-1")
    with pytest.raises(InvalidError):
        SessionFolder.of(tmp_path, "ag-1", bad)


@pytest.mark.parametrize("name", ["with space", "q?mode=memory", "a#b", "50%25", "naïve-日本", "it's"])
def test_a_data_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Paths are quoted where they become SQLite URIs."""
    folder = SessionFolder.of(tmp_path / name, "ag-1", "sess-1")
    folder.create()
    with open_inbound(folder) as inbound, open_outbound(folder) as outbound:
        assert (inbound.max_seq(), outbound.max_rowid()) == (0, 0)


def test_a_deep_data_directory_works_up_to_what_sqlite_opens(tmp_path: Path) -> None:
    """The longest path that SQLite takes can be used, and a longer one is refused with what to do about it."""
    deep = tmp_path
    below = len("/sessions/ag-1/sess-1/workspace/outbound.db")
    while (left := 503 - below - len(bytes(deep)) - 1) > 0:
        deep = deep / ("d" * min(left, 200))
    folder = SessionFolder.of(deep, "ag-1", "sess-1")
    folder.create()
    with open_inbound(folder) as inbound, open_outbound(folder) as outbound:
        assert (inbound.max_seq(), outbound.max_rowid()) == (0, 0)
    with pytest.raises(ConfigError, match="NANOTASKS_DATA_DIR"):
        SessionFolder.of(deep / "d", "ag-1", "sess-1").create()


UNDER_A_STRICT_UMASK = """
import os, pathlib, sys
os.umask(0o077)
from nanotasks.agents import safe_files
from nanotasks.session import SessionFolder, directories
from nanotasks.session.files import write_inbox_file

folder = SessionFolder(pathlib.Path(sys.argv[1]))
folder.create()
write_inbox_file(folder, "m1", "photo.png", b"bytes")
with directories.opened(folder.host) as host:
    safe_files.replace(host, "container.json", "{}")
"""


def test_the_agent_may_read_what_the_host_makes_whatever_its_umask(tmp_path: Path) -> None:
    """A host that runs as root with the umask 077 has agents under another user; the session's root stays closed."""
    root = tmp_path / "sess-1"
    subprocess.run([sys.executable, "-c", UNDER_A_STRICT_UMASK, root], check=True)
    host = root / "host"
    modes = {path.relative_to(root): oct(path.stat().st_mode & 0o777) for path in (host, *host.rglob("*"))}
    assert {str(path): mode for path, mode in modes.items()} == {
        "host": "0o755",
        "host/inbound.db": "0o644",
        "host/container.json": "0o644",
        "host/inbox": "0o755",
        "host/inbox/m1": "0o755",
        "host/inbox/m1/photo.png": "0o644",
    }
    assert root.stat().st_mode & 0o077 == 0
