"""Scheduled tasks on a real session: taken alone, and reported to the host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agent_runner.config import Config
from agent_runner.failures import ProviderError
from tests.unit.runner.by_hand import SessionByHand, chat
from tests.unit.runner.conftest import Running, ScriptedProvider

OK = '<message to="family">ok</message>'


def post(session: SessionByHand, prompt: str = "p", script: str | None = None) -> str:
    return session.post(json.dumps({"prompt": prompt, "script": script}), kind="task")


def report(session: SessionByHand, row_id: str) -> dict[str, Any]:
    (found,) = session.read(f"SELECT * FROM task_reports WHERE message_id = '{row_id}'")  # noqa: S608
    return found


def test_a_task_is_prompted_alone(session: SessionByHand, start: Callable[..., Running]) -> None:
    """Without the rows before and behind it, in their order."""
    provider = ScriptedProvider(lambda _text: [OK])
    rows = [session.post(chat("one")), session.post(chat("noise"), trigger=0), post(session), session.post(chat("two"))]
    start(provider)
    session.wait_done(*rows)
    kinds = ["task" if "<task" in text else "chat" for text in provider.prompts]
    assert kinds == ["chat", "task", "chat"]
    assert "one" in provider.prompts[0] and "two" in provider.prompts[2]


def test_a_success_is_reported_with_its_text(session: SessionByHand, start: Callable[..., Running]) -> None:
    """When it was claimed and when it ended, and what was said."""
    start(ScriptedProvider(lambda _text: [OK]))
    row_id = post(session)
    session.wait_done(row_id)
    found = report(session, row_id)
    assert (found["outcome"], found["result"], found["error"]) == ("succeeded", OK, None)
    assert found["claimed_at"] <= found["ended_at"] and found["claimed_at"].endswith("Z")


def test_chat_is_not_reported(session: SessionByHand, start: Callable[..., Running]) -> None:
    """Only scheduled tasks are."""
    start(ScriptedProvider(lambda _text: [OK]))
    session.wait_done(session.post(chat("hello")))
    assert session.read("SELECT * FROM task_reports") == []


@pytest.mark.parametrize(("host_answers", "told"), [(True, []), (False, ["Error: no such model"])])
def test_a_failure_is_reported(
    session: SessionByHand, start: Callable[..., Running], host_answers: bool, told: list[str]
) -> None:
    """With its class; a host that answers decides itself what the chat is told."""
    session.routing("tg", "tg:100")
    provider = ScriptedProvider(lambda _text: [ProviderError("no such model", "other")])
    start(provider, config=Config(host_answers=host_answers))
    row_id = post(session)
    session.wait_done(row_id)
    found = report(session, row_id)
    assert (found["outcome"], found["error_class"], found["error"]) == ("failed", "other", "no such model")
    assert session.texts() == told


@pytest.mark.parametrize(
    ("script", "outcome", "error"),
    [
        ("""echo '{"wakeAgent": false}'""", "not_woken", None),
        ("""echo '{"wakeAgent": true}'""", "succeeded", None),
        ("echo broken >&2; exit 3", "failed", "The script exited with 3. It said: broken"),
        ("echo hello", "failed", "The last line of the script is not JSON with a boolean wakeAgent: hello"),
        ("true", "failed", "The script wrote nothing; its last line must be JSON with a boolean wakeAgent."),
        ("""echo '{"wakeAgent": "yes"}'""", "failed", "The last line of the script is not JSON with a boolean"),
        ("""echo '{"wakeAgent": true}'; exit 1""", "failed", "The script exited with 1."),
    ],
)
def test_scripts_are_reported(
    session: SessionByHand, start: Callable[..., Running], script: str, outcome: str, error: str | None
) -> None:
    """A script that fails is a failed run, one that sees nothing to do is not."""
    start(ScriptedProvider(lambda _text: [OK]))
    row_id = post(session, script=script)
    session.wait_done(row_id)
    found = report(session, row_id)
    assert found["outcome"] == outcome
    assert found["error_class"] == ("script" if outcome == "failed" else None)
    assert (found["error"] or "").startswith(error or "")


def test_a_task_waits_for_the_turn_before_it(session: SessionByHand, start: Callable[..., Running]) -> None:
    """It is claimed when it can be begun, so that its lateness and its result are its own."""
    claimed_in_turn: list[dict[str, str]] = []
    provider = ScriptedProvider(lambda text: [lambda: claimed_in_turn.append(session.acks()), OK])
    first = session.post(chat("one"))
    task = post(session)
    start(provider)
    session.wait_done(first, task)
    assert task not in claimed_in_turn[0]
    assert claimed_in_turn[1][task] == "processing"
