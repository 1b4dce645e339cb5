"""The threads in which a process sends, and the places in which its tasks wait for them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

from nanotasks.deliver.places import place_to_wait
from nanotasks.deliver.pool import Job, LanePool
from nanotasks.settings import Settings
from nanotasks.testing import wait_for


def test_no_more_than_its_size_run_at_one_time() -> None:
    """The others wait their turn, in order."""
    pool, gate, started = LanePool(2), threading.Event(), []

    def work(number: int) -> None:
        started.append(number)
        gate.wait(10)

    jobs = [pool.submit(lambda _job, number=number: work(number)) for number in range(5)]  # type: ignore[misc]
    wait_for(lambda: len(started) == 2, what="two run")
    assert not pool.finish(0.05)
    assert len(started) == 2
    gate.set()
    assert pool.finish(10)
    assert sorted(started) == [0, 1, 2, 3, 4]
    assert all(job.done.done() for job in jobs)


def test_a_job_that_overstays_loses_its_place() -> None:
    """A call that hangs must not take the place of those that work."""
    pool, gate = LanePool(1), threading.Event()

    def hang(job: Job) -> None:
        job.busy_until = time.monotonic()
        gate.wait(10)

    hanging = pool.submit(hang)
    wait_for(lambda: hanging.busy_until <= time.monotonic(), what="it hangs")
    pool.submit(lambda _job: None).done.result(10)
    gate.set()
    hanging.done.result(10)


def test_an_error_stays_with_its_job() -> None:
    """The pool goes on."""
    pool = LanePool(1)

    def fail(_job: Job) -> None:
        raise ValueError("no")

    failed = pool.submit(fail)
    pool.submit(lambda _job: None).done.result(10)
    assert isinstance(failed.done.exception(10), ValueError)


def hold_place(settings: Settings, answer: Connection) -> None:
    with place_to_wait(settings) as granted:
        answer.send(granted)
        signal.pause()


def test_half_of_the_children_may_wait(tmp_path: Path) -> None:
    """Of four children two get a place; one that dies gives it back."""
    settings = replace(Settings(), data_dir=tmp_path, runtime_dir=str(tmp_path / "run"), worker_concurrency=4)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def start() -> tuple[ForkProcess, bool]:
        child = context.Process(target=hold_place, args=(settings, there))
        child.start()
        return child, here.recv()

    children = [start() for _ in range(4)]
    assert [granted for _, granted in children] == [True, True, False, False]
    children[0][0].kill()
    children[0][0].join()
    children.append(start())
    assert children[-1][1]
    for child, _ in children:
        child.kill()
        child.join()


def test_a_worker_with_one_child_never_waits(tmp_path: Path) -> None:
    """Its only child must stay free for everything else."""
    settings = replace(Settings(), data_dir=tmp_path, runtime_dir=str(tmp_path / "run"), worker_concurrency=1)
    with place_to_wait(settings) as granted:
        assert not granted
