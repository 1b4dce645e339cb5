"""Commits in workspaces are called out, whoever makes them and however they are watched."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from nanotasks.central.hosts import Instance
from nanotasks.clock import now_ms
from nanotasks.deliver import watcher as watcher_module
from nanotasks.deliver.inotify import IN_Q_OVERFLOW, Event, Inotify
from nanotasks.deliver.watcher import Watcher
from nanotasks.session import SessionFolder
from nanotasks.testing import wait_for
from tests.scene import HOST, Speaker, Stage

WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode = DELETE")
for line in sys.stdin:
    with connection:
        connection.execute("INSERT INTO processing_ack VALUES (?, 'completed', '')", (line,))
    print(time.time_ns(), flush=True)
"""


def has_inotify() -> bool:
    try:
        Inotify().close()
    except OSError:
        return False
    return True


@pytest.fixture
def inotify() -> None:
    """A user has 128 instances of inotify, and other programs may hold them all."""
    try:
        wait_for(has_inotify, timeout_s=5)
    except AssertionError:
        pytest.skip("no instance of inotify is left")


class Commits:
    """Remembers when which session was called out."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __call__(self, session_id: str) -> None:
        self.calls.append((session_id, time.time_ns()))

    def count(self, session_id: str) -> int:
        return sum(1 for called, _ in self.calls if called == session_id)


class Pokes:
    """A stand-in for the pub/sub of Redis."""

    def __init__(self) -> None:
        self.poked = threading.Event()
        self.topics: list[str] = []

    def listen(self, topics: Sequence[str], stop: threading.Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
        self.topics = list(topics)
        while not stop.is_set():
            if self.poked.wait(0.05):
                self.poked.clear()
                yield topics[0], {}


def start_instance(speaker: Speaker) -> str:
    instance_id = f"inst-{speaker.id}-{now_ms()}"
    with speaker.stage.db.write() as session:
        session.add(
            Instance(
                id=instance_id,
                session_id=speaker.id,
                agent_group_id=speaker.agent_id,
                host_id=HOST,
                runtime="process",
                epoch=1,
                started_at=now_ms(),
            )
        )
    return instance_id


def end_instance(speaker: Speaker, instance_id: str) -> None:
    with speaker.stage.db.write() as session:
        session.execute(update(Instance).where(Instance.id == instance_id).values(ended_at=now_ms()))


@contextmanager
def watching(stage: Stage, commits: Commits, pokes: Pokes | None = None, **options: Any) -> Iterator[Watcher]:
    stop = threading.Event()
    watcher = Watcher(stage.db, stage.settings, commits, listen=(pokes or Pokes()).listen, **options)
    thread = threading.Thread(target=watcher.run, args=(stop,))
    thread.start()
    try:
        yield watcher
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


@contextmanager
def writer(folder: SessionFolder) -> Iterator[subprocess.Popen[str]]:
    """A process that commits in outbound.db for each line it reads, and says when it had."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder.outbound_db)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def commit(process: subprocess.Popen[str], line: str) -> int:
    """Let the writer commit; when it had, in nanoseconds since the epoch."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize("use_inotify", [True, False], ids=["inotify", "polling"])
def test_a_commit_of_another_process_is_called_out(
    stage: Stage, andy: Speaker, use_inotify: bool, inotify: None
) -> None:
    """Once for each, soon after it: milliseconds by inotify, a tenth of a second by polling."""
    start_instance(andy)
    commits = Commits()
    with watching(stage, commits, use_inotify=use_inotify), writer(andy.folder) as process:
        wait_for(lambda: commits.count(andy.id) == 1, what="the session is looked at once")
        delays = []
        for number in range(10):
            before = commits.count(andy.id)
            committed = commit(process, str(number))
            wait_for(lambda before=before: commits.count(andy.id) > before, what="it is called out")  # type: ignore[misc]
            delays.append((commits.calls[-1][1] - committed) / 1e6)
    assert statistics.median(delays) < (50 if use_inotify else 200)


def test_a_new_instance_is_watched_when_it_is_poked(stage: Stage, andy: Speaker) -> None:
    """Nobody waits for the next reading."""
    commits, pokes = Commits(), Pokes()
    with watching(stage, commits, pokes):
        wait_for(lambda: pokes.topics == [f"instances:{HOST}"], what="it listens")
        start_instance(andy)
        pokes.poked.set()
        wait_for(lambda: commits.count(andy.id) == 1, timeout_s=0.9, what="the new session is looked at")
        andy.say("one")
        wait_for(lambda: commits.count(andy.id) == 2, what="its commit is called out")


def test_a_new_instance_is_found_without_a_poke(stage: Stage, andy: Speaker) -> None:
    """Redis may be away."""
    commits = Commits()
    with watching(stage, commits):
        start_instance(andy)
        wait_for(lambda: commits.count(andy.id) == 1, what="the new session is looked at")


def test_the_end_of_an_instance_is_one_more_look(stage: Stage, andy: Speaker, inotify: None) -> None:
    """Afterwards its workspace is not watched any more."""
    instance_id = start_instance(andy)
    commits, pokes = Commits(), Pokes()
    with watching(stage, commits, pokes) as watcher:
        wait_for(lambda: commits.count(andy.id) == 1, what="it is watched")
        end_instance(andy, instance_id)
        pokes.poked.set()
        wait_for(lambda: commits.count(andy.id) == 2, what="the last look")
        assert watcher._watched == {}
        andy.say("one")
        start_instance(andy)
        pokes.poked.set()
        wait_for(lambda: commits.count(andy.id) == 3, what="watched anew")


def test_nothing_but_a_commit_is_called_out(stage: Stage, andy: Speaker, inotify: None) -> None:
    """An agent at work changes its workspace all the time."""
    start_instance(andy)
    commits = Commits()
    with watching(stage, commits):
        wait_for(lambda: commits.count(andy.id) == 1, what="it is watched")
        for number in range(50):
            (andy.folder.workspace / ".heartbeat").touch()
            (andy.folder.workspace / f"file-{number}").write_text("x")
            (andy.folder.workspace / f"file-{number}").unlink()
        andy.say("one")
        wait_for(lambda: commits.count(andy.id) >= 2, what="the commit is called out")
    assert commits.count(andy.id) == 2


def test_a_link_in_place_of_the_workspace_is_not_followed(
    stage: Stage, andy: Speaker, tmp_path: Path, inotify: None
) -> None:
    """A folder that the agent made somewhere else is none of ours."""
    andy.folder.workspace.rename(tmp_path / "elsewhere")
    andy.folder.workspace.symlink_to(tmp_path / "elsewhere")
    start_instance(andy)
    betty = stage.session("betty", stage.agent("betty"))
    start_instance(betty)
    commits = Commits()
    with watching(stage, commits) as watcher:
        wait_for(lambda: commits.count(betty.id) == 1, what="the other is watched")
        assert {*watcher._watched, *watcher._polled} == {betty.id}
    assert commits.count(andy.id) == 0


def test_a_workspace_that_cannot_be_watched_is_polled(
    stage: Stage, andy: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel has a limited number of watches; the next session must not pay for it."""

    def refuse(_self: Inotify, _folder: int, _mask: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Inotify, "add", refuse)
    start_instance(andy)
    commits = Commits()
    with watching(stage, commits):
        wait_for(lambda: commits.count(andy.id) == 1, what="it is polled")
        andy.say("one")
        wait_for(lambda: commits.count(andy.id) >= 2, what="its commit is seen")


def test_without_inotify_everything_is_polled(stage: Stage, andy: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 129th instance of a user fails."""

    def refuse() -> Inotify:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watcher_module, "Inotify", refuse)
    start_instance(andy)
    commits = Commits()
    with watching(stage, commits):
        wait_for(lambda: commits.count(andy.id) == 1, what="it is polled")
        andy.say("one")
        wait_for(lambda: commits.count(andy.id) >= 2, what="its commit is seen")


def test_lost_events_mean_every_session(stage: Stage, andy: Speaker, inotify: None) -> None:
    """When the kernel's queue was full, nobody knows whose events are missing."""
    start_instance(andy)
    commits, pokes = Commits(), Pokes()
    with watching(stage, commits, pokes) as watcher:
        wait_for(lambda: commits.count(andy.id) == 1, what="it is watched")
        assert watcher._meant([Event(-1, IN_Q_OVERFLOW, "")]) == [andy.id]


def test_inotify_is_used_as_soon_as_there_is_some(
    stage: Stage, andy: Speaker, monkeypatch: pytest.MonkeyPatch, inotify: None
) -> None:
    """Polling is for the time without."""
    left: list[bool] = []

    def take() -> Inotify:
        left.append(True)
        if len(left) == 1:
            raise OSError(24, "Too many open files")
        return Inotify()

    monkeypatch.setattr(watcher_module, "Inotify", take)
    monkeypatch.setattr(watcher_module, "INOTIFY_AGAIN_S", 0.05)
    start_instance(andy)
    with watching(stage, Commits()) as watcher:
        wait_for(lambda: set(watcher._watched) == {andy.id}, what="it is watched")


def test_a_watcher_whose_listener_has_ended_reads_no_more_often(
    stage: Stage, andy: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds new instances without pokes, and does not turn round for a pipe that nobody writes to."""
    readings: list[int] = []
    read = Watcher._live_sessions

    def count(watcher: Watcher) -> dict[str, SessionFolder]:
        readings.append(1)
        return read(watcher)

    monkeypatch.setattr(Watcher, "_live_sessions", count)
    commits, pokes = Commits(), Pokes()
    monkeypatch.setattr(pokes, "listen", lambda _topics, _stop: iter(()))
    with watching(stage, commits, pokes):
        wait_for(lambda: readings, what="it watches")
        start_instance(andy)
        wait_for(lambda: commits.count(andy.id) == 1, what="the new session is looked at")
    assert len(readings) < 10


def fails(_session_id: str) -> None:
    raise RuntimeError("whoever is called has a bug")


def test_a_watcher_that_fails_leaves_no_listener(stage: Stage, andy: Speaker) -> None:
    """Whoever starts it again has one that listens, and not one more each time."""
    start_instance(andy)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError):
        Watcher(stage.db, stage.settings, fails, listen=Pokes().listen).run(threading.Event())
    wait_for(lambda: before.issuperset(threading.enumerate()), what="the end of the listener")


def test_a_late_poke_is_written_into_nobodys_file(stage: Stage, andy: Speaker, tmp_path: Path) -> None:
    """The pipe of a watcher that has failed is closed, and its numbers may be those of a database since."""
    late = threading.Event()

    def listen(topics: Sequence[str], _stop: threading.Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
        late.wait(10)
        yield topics[0], {}

    start_instance(andy)
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError):
        Watcher(stage.db, stage.settings, fails, listen=listen).run(threading.Event())
    opened = [(tmp_path / f"file-{number}").open("xb") for number in range(8)]
    late.set()
    wait_for(lambda: before.issuperset(threading.enumerate()), what="the end of the listener")
    for file in opened:
        file.close()
    assert {(tmp_path / f"file-{number}").read_bytes() for number in range(8)} == {b""}


def test_inotify_sees_what_is_removed(tmp_path: Path, inotify: None) -> None:
    """By a descriptor that is closed at once."""
    from nanotasks.deliver.inotify import IN_DELETE

    notices = Inotify()
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    watch = notices.add(folder, IN_DELETE)
    os.close(folder)
    assert notices.read() == []
    (tmp_path / "a name with ünïcode").touch()
    (tmp_path / "a name with ünïcode").unlink()
    assert notices.read() == [Event(watch, IN_DELETE, "a name with ünïcode")]
    notices.remove(watch)
    notices.close()
