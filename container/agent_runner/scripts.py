"""Scripts that run before a scheduled task is prompted, and decide whether it is (rules of NanoClaw 2).

A `task` row may carry `script`, a bash text. It runs with a time limit; the last line of its output must be a JSON
object with a boolean `wakeAgent`. True: the task is prompted, with `data` as its script output. Anything else, and
any failure: the task is skipped, which acknowledges it, so that a series goes on; a failure is reported as one. Scripts
run one after the other beside the loop, which meanwhile serves everything else.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO, Any, NamedTuple

from agent_runner import log
from agent_runner.rows import InboundRow
from agent_runner.values import field, parse_content, parse_json, storable, to_json

TIMEOUT_S = 30.0
MAX_OUTPUT_BYTES = 1024 * 1024
_LOGGED_CHARS = 500
_SHOWN_CHARS = 200
_LOOK_S = 0.02


class Outcome(NamedTuple):
    """The task to prompt, with its script's output, or None when it is skipped; `error` is how the script failed."""

    task: InboundRow | None
    error: str | None = None


def script_of(row: InboundRow) -> str | None:
    """The script of a task, or None."""
    if row.kind != "task":
        return None
    script = field(parse_content(row.content), "script")
    return script if isinstance(script, str) and script.strip() else None


def decide(row: InboundRow, output: str) -> Outcome:
    """What the output of a script that succeeded says about its task."""
    lines = output.strip().split("\n")
    try:
        answer = parse_json(lines[-1]) if lines else None
    except (ValueError, RecursionError):
        answer = None
    if field(answer, "wakeAgent") is False:
        return Outcome(None)
    if field(answer, "wakeAgent") is not True:
        return Outcome(None, _no_answer(answer, lines[-1] if lines else ""))
    content = parse_content(row.content)
    try:
        return Outcome(row._replace(content=to_json({**content, "scriptOutput": field(answer, "data")})))
    except RecursionError:  # read at the last level that can be read, and one more is too much to write
        return Outcome(None, "Its data is nested too deeply.")


def _no_answer(answer: Any, last: str) -> str:
    if not last.strip():
        return "The script wrote nothing; its last line must be JSON with a boolean wakeAgent."
    if not isinstance(answer, dict):
        return f"The last line of the script is not a JSON object with a boolean wakeAgent: {last[:_SHOWN_CHARS]}"
    if "wakeAgent" not in answer:
        return f"The last line of the script has no wakeAgent: {last[:_SHOWN_CHARS]}"
    return f"The wakeAgent in the last line of the script is neither true nor false: {last[:_SHOWN_CHARS]}"


_FAILURES = {
    "timeout": "The script ran longer than {limit:g} s.",
    "too_much_output": "The script wrote more than 1 MiB.",
    "stopped": "The script was stopped.",
}


def _failure(end: int | str, limit_s: float) -> str:
    return f"The script exited with {end}." if isinstance(end, int) else _FAILURES[end].format(limit=limit_s)


def _with_stderr(error: str, errors: str) -> str:
    """What went wrong, and the end of what the script said about it."""
    said = errors.strip()[-_LOGGED_CHARS:]
    return storable(f"{error} It said: {said}" if said else error)


class ScriptRunner:
    """Runs the scripts of a session. `cwd` is the agent's folder; `touch` is called while one runs."""

    def __init__(self, cwd: str, touch: Callable[[], None], *, timeout_s: float = TIMEOUT_S) -> None:
        self._cwd = cwd
        self._touch = touch
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        # One thread works off the queue, since waiters for a lock are served in any order; it ends when nothing waits.
        self._queue: deque[tuple[InboundRow, Callable[[InboundRow, Outcome], None]]] = deque()
        self._guard = threading.Lock()
        self._busy = False
        self._latest: threading.Thread | None = None

    def start(self, rows: Iterable[InboundRow], done: Callable[[InboundRow, Outcome], None]) -> None:
        """Run these rows' scripts after those that wait; `done` is called in another thread, once per row."""
        with self._guard:
            self._queue.extend((row, done) for row in rows)
            if self._busy:
                return
            self._busy = True
            self._latest = threading.Thread(target=self._run_all, name="task-scripts", daemon=True)
            self._latest.start()

    def stop(self, wait_s: float) -> None:
        """Kill what runs, within `wait_s`; nothing is reported any more."""
        self._stopped.set()
        if self._latest is not None:
            self._latest.join(wait_s)

    def run(self, row: InboundRow) -> Outcome:
        """Run one row's script to its end."""
        try:
            return self._run(row)
        except OSError as error:  # no bash, no room for its files
            log.error("task_script_failed", id=row.id, error=error)
            return Outcome(None, f"The script cannot be run: {error}")

    def _run(self, row: InboundRow) -> Outcome:
        import tempfile

        # Files rather than pipes: a child that outlives the script cannot hold anybody up by keeping one open.
        with (
            tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="task-script-", suffix=".sh") as file,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            file.write(storable(script_of(row) or ""))
            file.flush()
            end = self._execute(file.name, output, errors)
            said = _read(errors)
            log.debug("task_script_stderr", id=row.id, text=said[:_LOGGED_CHARS])
            outcome = decide(row, _read(output)) if end == 0 else Outcome(None, _failure(end, self._timeout_s))
        log.info("task_script", id=row.id, end=end, wakes=outcome.task is not None)
        return outcome._replace(error=_with_stderr(outcome.error, said)) if outcome.error else outcome

    def _run_all(self) -> None:
        while (waiting := self._next()) is not None:
            row, done = waiting
            outcome = self.run(row)
            if not self._stopped.is_set():
                done(row, outcome)

    def _next(self) -> tuple[InboundRow, Callable[[InboundRow, Outcome], None]] | None:
        with self._guard:
            if self._queue and not self._stopped.is_set():
                return self._queue.popleft()
            self._busy = False
            return None

    def _execute(self, path: str, output: IO[bytes], errors: IO[bytes]) -> int | str:
        """The exit code, or why the script was killed."""
        import subprocess

        process = subprocess.Popen(
            ["bash", path],
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
        )
        deadline = time.monotonic() + self._timeout_s
        while True:
            self._touch()
            ended = process.poll() is not None
            if max(os.fstat(file.fileno()).st_size for file in (output, errors)) > MAX_OUTPUT_BYTES:
                reason = "too_much_output"
            elif ended:
                return process.returncode
            elif self._stopped.is_set():
                reason = "stopped"
            elif time.monotonic() > deadline:
                reason = "timeout"
            else:
                self._stopped.wait(_LOOK_S)
                continue
            _kill_group(process.pid)
            process.wait()
            return reason


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")


def _kill_group(pid: int) -> None:
    import signal

    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass  # it ended by itself in this moment
