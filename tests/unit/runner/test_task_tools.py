"""The tools for scheduled tasks with a host that answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runner import tools
from agent_runner.paths import Workspace
from agent_runner.tools import tasks
from tests.unit.runner.by_hand import SessionByHand

CRON = {"prompt": "p", "processAfter": "2031-01-01T09:00:00Z", "recurrence": "0 9 * * *"}


@pytest.fixture
def workspace(session: SessionByHand, tmp_path: Path) -> Workspace:
    """A session whose host answers."""
    config = tmp_path / "container.json"
    config.write_text(json.dumps({"hostAnswers": True}))
    return Workspace(str(session.workspace), str(session.agent_dir), str(config))


@contextmanager
def host(session: SessionByHand, ok: bool, text: str) -> Iterator[None]:
    """Answers the first request."""

    def answer() -> None:
        (request,) = session.wait(session.sent, "a request")
        assert json.loads(request["content"])["awaitsAnswer"] is True
        content = {"type": "task_response", "requestId": request["id"], "ok": ok, "text": text}
        session.post(json.dumps(content), id=f"resp-{request['id']}", kind="system", trigger=0)

    thread = threading.Thread(target=answer)
    thread.start()
    yield
    thread.join()


def call(workspace: Workspace, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    result = tools.call(workspace, name, arguments)
    return result.text, result.is_error


def test_the_answer_is_passed_on(session: SessionByHand, workspace: Workspace) -> None:
    """When the task runs next, in the words of the host; the answer's row is acknowledged."""
    with host(session, True, "Next runs (UTC): soon"):
        text, is_error = call(workspace, "schedule_task", CRON)
    assert not is_error
    assert text.splitlines()[1:] == ["Next runs (UTC): soon"]
    assert (
        text.startswith("Task scheduled (id: task-")
        and "runs at: 2031-01-01T09:00:00.000Z, recurrence: 0 9 * * *)" in text
    )
    assert list(session.acks().values()) == ["completed"]


def test_a_refusal_is_an_error(session: SessionByHand, workspace: Workspace) -> None:
    """So that the model can correct itself."""
    with host(session, False, "it is no schedule"):
        assert call(workspace, "cancel_task", {"taskId": "t1"}) == ("Error: it is no schedule", True)


def test_a_host_that_is_slow(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request stands; the text says that nobody has confirmed it."""
    monkeypatch.setattr(tasks, "PATIENCE_S", 0.1)
    assert call(workspace, "pause_task", {"taskId": "t1"}) == (
        "Task pause requested: t1\nThe host has not confirmed it yet.",
        False,
    )


def test_the_host_finds_the_first_time(session: SessionByHand, workspace: Workspace) -> None:
    """A recurrence alone is enough for a host that answers."""
    with host(session, True, "ok"):
        call(workspace, "schedule_task", {"prompt": "p", "recurrence": "@daily"})
    assert json.loads(session.sent()[0]["content"])["processAfter"] is None


@pytest.mark.parametrize("recurrence", ["0 9 * *", "* * * * * *", "daily", "every", "sometimes"])
def test_what_is_plainly_no_recurrence(workspace: Workspace, recurrence: str) -> None:
    """It is refused before the host is asked."""
    text, is_error = call(workspace, "schedule_task", {**CRON, "recurrence": recurrence})
    assert is_error and text.startswith("Error: invalid recurrence:")


def test_extra_arguments_are_passed_on(session: SessionByHand, tmp_path: Path) -> None:
    """The zone, by which the time is read too, and whether it runs apart."""
    plain = Workspace(str(session.workspace), str(session.agent_dir), "")
    arguments = {"prompt": "p", "processAfter": "2031-01-01T09:00:00", "zone": "Asia/Tokyo", "ownSession": True}
    call(plain, "schedule_task", arguments)
    content = json.loads(session.sent()[0]["content"])
    assert (content["processAfter"], content["zone"], content["ownSession"]) == (
        "2031-01-01T00:00:00.000Z",
        "Asia/Tokyo",
        True,
    )
    assert call(plain, "schedule_task", {**arguments, "zone": "Mars"}) == ("Error: unknown zone: Mars", True)
