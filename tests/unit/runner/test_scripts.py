"""Scripts before scheduled tasks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_runner.rows import NOWHERE, InboundRow
from agent_runner.scripts import ScriptRunner, script_of
from tests.unit.runner.by_hand import SessionByHand, chat
from tests.unit.runner.conftest import Running, ScriptedProvider

OK = '<message to="family">ok</message>'
WAKE = """echo '{"wakeAgent": true, "data": {"n": 1}}'"""


def task(script: object, kind: str = "task") -> InboundRow:
    return InboundRow("t1", 2, kind, "", True, NOWHERE, json.dumps({"prompt": "p", "script": script}))


def run(tmp_path: Path, script: str, timeout_s: float = 10.0) -> dict[str, object] | None:
    """The content of the task after its script, or None when it is skipped."""
    outcome = ScriptRunner(str(tmp_path), lambda: None, timeout_s=timeout_s).run(task(script))
    return json.loads(outcome.task.content) if outcome.task else None


@pytest.mark.parametrize(
    ("script", "output"),
    [
        (WAKE, {"n": 1}),
        ("echo noise; " + WAKE, {"n": 1}),
        (WAKE + "; echo; echo", {"n": 1}),
        ("""echo '{"wakeAgent": true}'""", None),
        ("echo warning >&2; " + WAKE, {"n": 1}),
        ("""printf '{"wakeAgent": true, "data": "a\\342\\200\\250b"}'""", "a\u2028b"),
        ("""echo '{"wakeAgent": true, "data": 1e400}'""", None),
    ],
)
def test_a_script_may_wake_the_agent(tmp_path: Path, script: str, output: object) -> None:
    """Its last line decides, and brings data."""
    assert run(tmp_path, script) == {"prompt": "p", "script": script, "scriptOutput": output}


@pytest.mark.parametrize(
    "script",
    [
        """echo '{"wakeAgent": false}'""",
        "exit 3",
        "echo not json",
        "true",
        "echo null",
        "echo '[]'",
        """echo '{"wakeAgent": "yes"}'""",
        """echo '{"wakeAgent": true, "data": NaN}'""",
        WAKE + "; exit 1",
        WAKE + "; kill -9 $$",
        "head -c 1200000 /dev/zero | tr '\\0' x; echo; " + WAKE,
    ],
)
def test_everything_else_skips_the_task(tmp_path: Path, script: str) -> None:
    """Also when the script fails."""
    assert run(tmp_path, script) is None


def test_a_script_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """And skips its task."""
    began = time.monotonic()
    assert run(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait", timeout_s=0.3) is None
    assert time.monotonic() - began < 5
    child = int((tmp_path / "child").read_text())
    stat = Path(f"/proc/{child}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_left_behind_does_not_delay(tmp_path: Path) -> None:
    """It may hold the output open; the script itself has ended."""
    began = time.monotonic()
    assert run(tmp_path, "sleep 5 & " + WAKE) is not None
    assert time.monotonic() - began < 4


def test_scripts_run_in_the_agents_folder_and_are_signs_of_life(tmp_path: Path) -> None:
    """With the environment of the runner."""
    touches: list[None] = []
    runner = ScriptRunner(str(tmp_path), lambda: touches.append(None))
    outcome = runner.run(task("""sleep 0.2; echo "{\\"wakeAgent\\": true, \\"data\\": \\"$PWD\\"}" """))
    assert outcome.task is not None
    assert json.loads(outcome.task.content)["scriptOutput"] == str(tmp_path)
    assert len(touches) > 1


@pytest.mark.parametrize("script", [None, "", "  ", 5, ["x"]])
def test_without_a_script_there_is_nothing_to_run(script: object) -> None:
    """Such tasks are prompted at once."""
    assert script_of(task(script)) is None
    assert script_of(task("exit 1", kind="chat")) is None


def post_task(session: SessionByHand, script: str) -> str:
    return session.post(json.dumps({"prompt": "water the plants", "script": script}), kind="task")


def test_a_task_is_prompted_with_its_scripts_output(session: SessionByHand, start: Callable[..., Running]) -> None:
    """And acknowledged when answered."""
    provider = ScriptedProvider(lambda text: [OK])
    row = post_task(session, WAKE)
    start(provider)
    session.wait_done(row)
    assert 'Script output:\n{\n  "n": 1\n}\n\nInstructions:\nwater the plants' in provider.prompts[0]
    assert session.texts() == ["ok"]


def test_a_skipped_task_is_done(session: SessionByHand, start: Callable[..., Running]) -> None:
    """So that its series goes on; the agent hears nothing."""
    provider = ScriptedProvider(lambda text: [OK])
    row = post_task(session, "exit 1")
    start(provider)
    session.wait_done(row)
    assert session.acks() == {row: "completed"}
    assert provider.prompts == []


def test_a_slow_script_holds_up_nobody(session: SessionByHand, start: Callable[..., Running]) -> None:
    """Messages are answered while it runs; its own row stays claimed."""
    slow = post_task(session, "sleep 1; " + WAKE)
    start(ScriptedProvider(lambda text: [OK]))
    message = session.post(chat("hello"))
    session.wait_done(message)
    assert session.acks()[slow] == "processing"
    session.wait_done(slow)
    assert len(session.sent()) == 2


def test_a_stop_kills_the_script(session: SessionByHand, start: Callable[..., Running]) -> None:
    """And leaves its claim to the next start."""
    row = post_task(session, "touch started; sleep 60")
    running = start(ScriptedProvider(lambda text: [OK]))
    session.wait(lambda: (session.agent_dir / "started").exists(), "the script")
    running.stop()
    assert session.acks() == {row: "processing"}
    assert not [thread for thread in threading.enumerate() if thread.name == "task-scripts"]
