"""The worker's pool ends at once, also with a task that it was told to forget."""

from __future__ import annotations

import subprocess
import sys

# The job is with the child, and its confirmation is not read yet when the consumer closes, which flushes the pool.
STOPPED_MEANWHILE = """
import sys, time
from celery import Celery
from kombu.asynchronous import Hub, set_event_loop
from nanotasks.ops.pool import TaskPool

hub = Hub()
set_event_loop(hub)
app = Celery("test")
pool = TaskPool(limit=2, app=app, threads=False, initargs=(app, "test"))
pool.start()
pool.register_with_event_loop(hub)
turns = hub.create_loop()
inner = pool._pool
while len(inner._fileno_to_inq) < 2:
    next(turns)
for _ in range(2):
    pool.apply_async(time.sleep, (float(sys.argv[1]),))
while inner.outbound_buffer or inner._active_writers or not inner._busy_workers:
    next(turns)
assert not any(job._accepted for job in inner._cache.values()), "too late for this test"
inner.flush()
began = time.monotonic()
pool.stop()
print(time.monotonic() - began)
"""


def test_a_task_that_was_not_confirmed_holds_up_no_stop() -> None:
    """Celery's own pool waits half a minute for the child, and the child for it."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_MEANWHILE, "0.3"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert 0.2 < float(done.stdout) < 5
