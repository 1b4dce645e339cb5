"""The supervisor: keeps children running, stops them in order, and leaves nobody behind. With real processes."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nanotasks.ops.lifeline import Lifeline
from nanotasks.ops.supervise import Child, Stage, Supervisor, after_an_end, cap
from nanotasks.owners import process_start_time
from nanotasks.testing import wait_for


def run_in_child(work: Callable[[], int]) -> int:
    """Run `work` in a forked process and return its pid."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return pid


def supervise(directory: Path, *children: Child, parent: Lifeline | None = None) -> int:
    def work() -> int:
        if parent:
            parent.give_up_parent_end()
        stages = [Stage([child], grace_s=5.0) for child in children]
        return Supervisor(stages, pause_s=0.01, log_dir=directory, parent=parent).run()

    return run_in_child(work)


def sleeper(directory: Path, name: str) -> Child:
    """A child that notes its pid, then waits for its end, which it notes too."""

    def run(lifeline: Lifeline) -> int:
        def end(_number: int, _frame: object) -> None:
            note(directory, name)
            os._exit(0)

        signal.signal(signal.SIGTERM, end)
        lifeline.hold(2.0)
        with (directory / f"{name}.pids").open("a") as pids:
            pids.write(f"{os.getpid()}\n")
        while True:
            time.sleep(1)

    return Child(name, run)


def note(directory: Path, name: str) -> None:
    with (directory / "ends").open("a") as ends:
        ends.write(f"{name}\n")


def pids(directory: Path, name: str) -> list[int]:
    path = directory / f"{name}.pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def gone(pid: int) -> bool:
    return process_start_time(pid) is None


def test_pauses_grow_while_a_child_ends_young_and_stay_bearable() -> None:
    """The fourth kill in a row is not punished with half a minute, and one that lived begins anew."""
    failures, pauses = 0, []
    for lived_s in (0.1, 2.0, 0.1, 4.0, 0.1, 6.0, 0.1):
        failures, pause = after_an_end(failures, lived_s, 1.0)
        pauses.append(pause)
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0, 1.0, 1.0]
    assert after_an_end(10**9, 0.0, 1.0)[1] == 4.0


def test_a_child_that_dies_is_started_again(tmp_path: Path) -> None:
    """kill -9 of a child costs a restart."""
    supervisor = supervise(tmp_path, sleeper(tmp_path, "one"))
    (first,) = wait_for(lambda: pids(tmp_path, "one"), what="the first start")
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: pids(tmp_path, "one")[1:], what="the second start")[0]
    assert second != first
    os.kill(supervisor, signal.SIGTERM)
    assert os.waitpid(supervisor, 0)[1] == 0
    wait_for(lambda: gone(second), what="the child's end")


def test_stages_stop_in_the_opposite_order(tmp_path: Path) -> None:
    """What others need is stopped last."""
    supervisor = supervise(tmp_path, sleeper(tmp_path, "first"), sleeper(tmp_path, "second"))
    wait_for(lambda: pids(tmp_path, "first") and pids(tmp_path, "second"), what="both")
    os.kill(supervisor, signal.SIGTERM)
    os.waitpid(supervisor, 0)
    assert (tmp_path / "ends").read_text().split() == ["second", "first"]


def test_a_stage_has_a_last_duty_before_the_next_one_stops(tmp_path: Path) -> None:
    """What is to be done after the workers and before Redis is done there, and nobody waits for it in vain."""

    def work() -> int:
        stages = [
            Stage([sleeper(tmp_path, "first")]),
            Stage([sleeper(tmp_path, "second")], after_stop=lambda: note(tmp_path, "duty")),
        ]
        return Supervisor(stages, pause_s=0.01).run()

    supervisor = run_in_child(work)
    wait_for(lambda: pids(tmp_path, "first") and pids(tmp_path, "second"), what="both")
    began = time.monotonic()
    os.kill(supervisor, signal.SIGTERM)
    os.waitpid(supervisor, 0)
    assert time.monotonic() - began < 8.0
    assert (tmp_path / "ends").read_text().split() == ["second", "duty", "first"]


def test_children_end_with_a_killed_supervisor(tmp_path: Path) -> None:
    """kill -9 of the supervisor leaves nothing running."""
    supervisor = supervise(tmp_path, sleeper(tmp_path, "one"))
    (child,) = wait_for(lambda: pids(tmp_path, "one"), what="the start")
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    wait_for(lambda: gone(child), what="the child's end")


def test_the_supervisor_stops_when_its_parent_is_gone(tmp_path: Path) -> None:
    """A lifeline that is cut stops the whole tree."""
    lifeline = Lifeline()
    supervisor = supervise(tmp_path, sleeper(tmp_path, "one"), parent=lifeline)
    (child,) = wait_for(lambda: pids(tmp_path, "one"), what="the start")
    lifeline.cut()
    assert os.waitpid(supervisor, 0)[1] == 0
    assert gone(child)


def test_a_child_with_a_bad_configuration_is_not_started_again(tmp_path: Path) -> None:
    """Exit code 78 ends everything with that code: another start would fail in the same way."""
    supervisor = supervise(tmp_path, sleeper(tmp_path, "good"), Child("bad", lambda _lifeline: 78))
    assert os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]) == 78
    assert all(gone(pid) for pid in pids(tmp_path, "good"))


def test_pauses_between_restarts_grow(tmp_path: Path) -> None:
    """A child that cannot live does not keep the machine busy."""

    def run(_lifeline: Lifeline) -> int:
        with (tmp_path / "starts").open("a") as starts:
            starts.write(f"{time.monotonic()}\n")
        return 1

    supervisor = supervise(tmp_path, Child("broken", run))
    wait_for(lambda: len((tmp_path / "starts").read_text().split()) >= 5 if (tmp_path / "starts").exists() else 0)
    os.kill(supervisor, signal.SIGTERM)
    os.waitpid(supervisor, 0)
    times = [float(text) for text in (tmp_path / "starts").read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[3] >= 4 * 0.01 and pauses[3] > pauses[0]


def test_what_children_say_goes_to_their_logs(tmp_path: Path) -> None:
    """Each child has a log of its own; the terminal stays free."""

    def run(_lifeline: Lifeline) -> int:
        os.write(1, b"said\n")
        os.write(2, b"complained\n")
        time.sleep(60)
        return 0

    supervisor = supervise(tmp_path, Child("one", run))
    log = tmp_path / "one.log"
    wait_for(lambda: log.exists() and log.read_text() == "said\ncomplained\n", what="the log")
    os.kill(supervisor, signal.SIGTERM)
    os.waitpid(supervisor, 0)


def test_a_log_is_cut_and_its_end_is_kept(tmp_path: Path) -> None:
    """A log and its predecessor stay below the limit each."""
    log = tmp_path / "x.log"
    log.write_bytes(b"old" + b"n" * 100)
    cap(log, 100)
    assert log.read_bytes() == b""
    assert (tmp_path / "x.log.1").read_bytes() == b"n" * 100
    log.write_bytes(b"short")
    cap(log, 100)
    assert log.read_bytes() == b"short"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_lost_parent_asks_softly_then_ends(tmp_path: Path, number: int) -> None:
    """A process that does not react to its parent's end is ended after the grace."""
    lifeline = Lifeline()

    def stubborn() -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lifeline.hold(0.05, on_lost=lambda: os.kill(os.getpid(), number) if number == signal.SIGTERM else None)
        (tmp_path / "ready").touch()
        time.sleep(60)
        return 0

    pid = run_in_child(stubborn)
    wait_for((tmp_path / "ready").exists, what="the child")
    lifeline.cut()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 75
