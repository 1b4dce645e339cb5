"""`nanotasks up`: everything from one command, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks.runtimes.select import runtime
from nanotasks.settings import DATA_DIR_BYTES
from nanotasks.testing import wait_for
from tests.installation import Installation, children, named, wait_until_gone


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    made.stop()


def say(here: Installation, text: str) -> subprocess.CompletedProcess[str]:
    return here.run("up", given=text)


def started(here: Installation) -> subprocess.Popen[bytes]:
    process = here.start("up", "--no-chat")
    wait_for(lambda: "nanotasks is up" in here.log("up"), 30, what="everything is up")
    return process


def test_piped_lines_are_answered_and_the_end_of_input_is_the_end(here: Installation) -> None:
    """Replies on stdout and nothing else, exit code 0; the second start finds the earlier conversation."""
    first = say(here, "echo one\ncount\n")
    assert first.stdout.splitlines() == ["one", first.stdout.splitlines()[1]]
    assert "not isolated" in first.stderr
    second = say(here, "count\n")
    assert second.stdout.splitlines() == [first.stdout.splitlines()[1].replace("1", "2")]
    assert runtime(here.settings).list() == []


def test_a_signal_stops_all_of_it(here: Installation) -> None:
    """SIGTERM: exit code 0, no process left, no agent either."""
    process = started(here)
    family = children(process.pid)
    assert {len(named(family, name)) for name in ("supervisor", "keeper", "gateway")} == {1}
    here.run("chat", given="echo here\n")
    assert len(runtime(here.settings).list()) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    wait_until_gone(family)
    assert runtime(here.settings).list() == []
    assert [host["state"] for host in json.loads(here.run("status", "--json").stdout)["hosts"]] == ["down"]


def test_kill_9_of_up_leaves_nothing_and_the_next_start_works(here: Installation) -> None:
    """The tree notices that its owner is gone, and stops itself, agents included."""
    process = started(here)
    here.run("chat", given="echo here\n")
    family = children(process.pid)
    process.kill()
    process.wait()
    assert say(here, "echo again\n").stdout == "again\n"
    wait_until_gone(family)


def test_kill_9_of_the_supervisor_ends_everything_with_an_error(here: Installation) -> None:
    """Without its supervisor the rest ends by itself, and `up` says so."""
    process = started(here)
    family = children(process.pid)
    os.kill(named(family, "supervisor")[0], signal.SIGKILL)
    assert process.wait(30) == 1
    assert "ended by themselves" in here.log("up")
    wait_until_gone(family)


@pytest.mark.parametrize("name", ["worker", "keeper", "gateway"])
def test_a_process_that_is_killed_is_started_again(here: Installation, name: str) -> None:
    """kill -9 of any part costs a moment."""
    process = started(here)
    before = named(children(process.pid), name)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until_gone(before)
    wait_for(lambda: named(children(process.pid), name), what=f"a new {name}")
    assert here.run("chat", given="echo still here\n").stdout == "still here\n"


def test_a_second_up_on_the_same_data_is_refused(here: Installation) -> None:
    """It names the one that runs and what to do, and does not disturb it."""
    process = started(here)
    refused = here.run("up", code=4)
    assert f"(pid {process.pid})" in refused.stderr and "nanotasks chat" in refused.stderr
    assert here.run("chat", given="echo undisturbed\n").stdout == "undisturbed\n"


def test_data_of_a_newer_release_is_refused(here: Installation) -> None:
    """It is left as it is; the error says what to do."""
    here.run("db", "upgrade")
    with here.central() as db, db.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    refused = here.run("up", code=78)
    assert "newer release" in refused.stderr and "Upgrade nanotasks" in refused.stderr


def test_a_data_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A plain file in its place, for example."""
    here = Installation(tmp_path)
    here.settings.data_dir.touch()
    refused = here.run("up", code=78)
    assert "cannot be used" in refused.stderr
    assert "a file in its place" in refused.stderr and "move that file away" in refused.stderr


def test_a_very_deep_data_directory_works(tmp_path: Path) -> None:
    """Sockets live elsewhere, so no path is too long for them."""
    deep = tmp_path.joinpath(*["a-rather-long-name-of-a-folder"] * 20)
    deep = Path(str(deep)[:DATA_DIR_BYTES])
    here = Installation(tmp_path, data_dir=str(deep), runtime_dir="")
    try:
        assert say(here, "echo deep\n").stdout == "deep\n"
    finally:
        here.stop()


def test_a_data_directory_that_is_too_deep_for_databases_is_refused(tmp_path: Path) -> None:
    """The error says how long the path may be and what to set."""
    here = Installation(tmp_path)
    here.environment["NANOTASKS_DATA_DIR"] = str(tmp_path / ("x" * 200) / ("y" * 200))
    refused = here.run("up", code=78)
    assert "NANOTASKS_DATA_DIR" in refused.stderr and str(DATA_DIR_BYTES) in refused.stderr


def test_the_terminal_shows_replies_only(here: Installation) -> None:
    """What the processes log goes to their files, not to the chat."""
    done = say(here, "echo x\n")
    assert done.stdout == "x\n"
    assert len(done.stderr.splitlines()) == 1
    assert {path.stem for path in (here.settings.data_dir / "logs").glob("*.log")} >= {"worker", "keeper", "gateway"}


def test_python_m_nanotasks_is_the_command(tmp_path: Path) -> None:
    """The module runs where a console script could not, in very deep paths."""
    done = subprocess.run([sys.executable, "-m", "nanotasks", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
