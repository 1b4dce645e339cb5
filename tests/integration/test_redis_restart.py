"""Redis restarts while an acknowledged-late task runs: the worker lives on. (Celery 5.7.0 exits; hence the pin.)"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanotasks.celery_app import create
from nanotasks.ops import redis_server
from nanotasks.testing import wait_for
from tests.installation import Installation, children, installation

# The worker of the package, with one more task: it says when it begins and when it ends.
WORKER = """
import sys, time
from nanotasks.celery_app import app
from nanotasks.ops.worker import run_celery

class Alone:
    def hold(self, grace_s):
        pass

@app.task(name="test.slow")
def slow(path, seconds):
    with open(path, "a") as notes:
        notes.write("began\\n")
    time.sleep(seconds)
    with open(path, "a") as notes:
        notes.write("ended\\n")

sys.exit(run_celery(Alone()))
"""


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nanotasks-redis-") as short:
        yield Path(short) / "redis.sock"


@contextmanager
def redis_on(socket: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = redis_server.start(socket, socket.with_suffix(".log"))
    wait_for(socket.exists, what="the socket")
    yield process
    process.kill()
    process.wait()
    socket.unlink(missing_ok=True)


def send(here: Installation, notes: Path, seconds: float) -> None:
    with create(here.settings) as app:
        app.send_task("test.slow", args=(str(notes), seconds), queue="default")


def wait_for_notes(notes: Path, word: str, times: int) -> None:
    wait_for(lambda: notes.read_text().count(word) == times, 30, what=f"{word} {times} times")


def test_a_worker_survives_a_restart_of_redis_while_a_task_runs(tmp_path: Path, socket: Path) -> None:
    """Twice: the running task ends, the same worker process takes the next one, and nothing has to be restarted."""
    notes = tmp_path / "notes"
    notes.touch()
    with installation(tmp_path, redis_url=f"redis+socket://{socket}") as here:
        with redis_on(socket):
            worker = here.start_python("-c", WORKER, log="worker")
            wait_for(lambda: '"worker_ready"' in here.log("worker"), 30, what="the worker")
            pool = children(worker.pid)
            send(here, notes, 1.0)
            wait_for_notes(notes, "began", 1)
        for number in (1, 2):
            wait_for_notes(notes, "ended", number)
            with redis_on(socket):
                send(here, notes, 1.0)
                wait_for_notes(notes, "began", number + 1)
        assert worker.poll() is None
        assert set(pool) <= set(children(worker.pid))
