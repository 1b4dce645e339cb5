"""Scheduled tasks on a real session: taken alone, and reported to the host."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from agent_runner.config import Config
from agent_runner.failures import KINDS, ProviderError
from agent_runner.formatter import Formatter
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
        ("echo hello", "failed", "The last line of the script is not a JSON object with a boolean wakeAgent: hello"),
        (
            "echo why >&2; echo hello",
            "failed",
            "The last line of the script is not a JSON object with a boolean wakeAgent: hello It said: why",
        ),
        ("echo '[]'", "failed", "The last line of the script is not a JSON object"),
        ("echo null", "failed", "The last line of the script is not a JSON object"),
        ("echo '{}'", "failed", "The last line of the script has no wakeAgent: {}"),
        ("kill -9 $$", "failed", "The script exited with -9."),
        ("head -c 1200000 /dev/zero", "failed", "The script wrote more than 1 MiB."),
        ("true", "failed", "The script wrote nothing; its last line must be JSON with a boolean wakeAgent."),
        ("""echo '{"wakeAgent": "yes"}'""", "failed", "The wakeAgent in the last line of the script is neither"),
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
    assert found["claimed_at"] <= found["ended_at"]


def test_an_error_ends_with_the_last_words_of_the_script(session: SessionByHand, start: Callable[..., Running]) -> None:
    """The end of a long stderr tells more than its beginning."""
    start(ScriptedProvider(lambda _text: [OK]))
    row_id = post(session, script="printf 'x%.0s' {1..900} >&2; echo ' the end' >&2; exit 2")
    session.wait_done(row_id)
    error = report(session, row_id)["error"]
    assert error.endswith("x the end") and error.startswith("The script exited with 2. It said: xxx")
    assert len(error.partition("It said: ")[2]) == 500


def test_scripts_run_in_the_order_of_their_tasks(session: SessionByHand, start: Callable[..., Running]) -> None:
    """One after the other, however many wait."""
    order = session.agent_dir / "order"
    rows = [
        post(session, str(n), script=f"""echo {n} >> {order}; sleep 0.02; echo '{{"wakeAgent": true}}'""")
        for n in range(12)
    ]
    provider = ScriptedProvider(lambda _text: [OK])
    start(provider)
    session.wait_done(*rows)
    assert order.read_text().split() == [str(n) for n in range(12)]
    prompted = [re.findall(r"Instructions:\n(\d+)", text) for text in provider.prompts]
    assert prompted == [[str(n)] for n in range(12)]


def test_a_script_that_cannot_be_run(
    session: SessionByHand, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failed run, and the next script has its turn."""
    monkeypatch.setenv("PATH", "")
    start(ScriptedProvider(lambda _text: [OK]))
    rows = [post(session, script="true"), post(session, script="true")]
    session.wait_done(*rows)
    for row_id in rows:
        found = report(session, row_id)
        assert (found["outcome"], found["error_class"]) == ("failed", "script")
        assert found["error"].startswith("The script cannot be run:")


def test_a_task_that_cannot_be_shown(
    session: SessionByHand, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run has failed: nothing else would end it."""

    def refuse(*_: Any) -> str:
        raise RecursionError

    monkeypatch.setattr(Formatter, "element", refuse)
    start(ScriptedProvider(lambda _text: [OK]))
    plain, scripted = post(session), post(session, script="""echo '{"wakeAgent": true}'""")
    session.wait_done(plain, scripted)
    for row_id in (plain, scripted):
        found = report(session, row_id)
        assert (found["outcome"], found["error_class"]) == ("failed", "other")
        assert found["claimed_at"] <= found["ended_at"]
    assert session.acks() == {plain: "failed", scripted: "failed"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_has_the_class_of_the_error(session: SessionByHand, start: Callable[..., Running], kind: str) -> None:
    """After the tries that its class has; a try that is to follow ends nothing."""
    seen: list[str | None] = []

    def answer(_text: str) -> list[Any]:
        return [lambda: seen.append(report(session, row_id)["outcome"]), ProviderError("no " + "x" * 2000, kind)]

    row_id = post(session)
    start(ScriptedProvider(answer), config=Config(host_answers=True))
    session.wait_done(row_id)
    found = report(session, row_id)
    assert (found["outcome"], found["error_class"], found["result"]) == ("failed", kind, None)
    assert found["error"] == "no " + "x" * 997
    assert seen == [None] * (1 if kind == "other" else 2 if kind == "session" else 5)


def test_a_long_result_is_cut(session: SessionByHand, start: Callable[..., Running]) -> None:
    """What the agent kept to itself is part of it."""
    text = f"<internal>thoughts</internal>{OK}" + "y" * 30_000
    start(ScriptedProvider(lambda _text: [text]))
    row_id = post(session)
    session.wait_done(row_id)
    assert report(session, row_id)["result"] == text[:20_000]


def test_chat_is_pushed_into_the_turn_of_a_task(session: SessionByHand, start: Callable[..., Running]) -> None:
    """A task keeps nobody waiting once it is claimed, and each has its own answer."""
    pushed: list[str] = []

    def answer(text: str) -> list[Any]:
        if "<task" not in text:
            return ['<message to="family">to the chat</message>']
        pushed.append(session.post(chat("meanwhile")))
        return [lambda: session.wait(lambda: pushed[0] in session.acks(), "a claim"), OK]

    row_id = post(session)
    start(ScriptedProvider(answer))
    session.wait(lambda: pushed, "the turn of the task")
    session.wait_done(row_id, *pushed)
    assert report(session, row_id)["result"] == OK
    assert session.texts() == ["ok", "to the chat"]


def test_a_task_that_is_taken_again_is_reported_anew(session: SessionByHand, start: Callable[..., Running]) -> None:
    """What an earlier try said of it is gone in the transaction that claims it."""
    row_id = post(session)
    running = start(ScriptedProvider(lambda _text: [ProviderError("broken", "other")]))
    session.wait_done(row_id)
    running.stop()
    earlier = report(session, row_id)
    session.delete_acks()
    during: list[dict[str, Any]] = []
    start(ScriptedProvider(lambda _text: [lambda: during.append(report(session, row_id)), OK]))
    session.wait_done(row_id)
    nothing = dict.fromkeys(("ended_at", "outcome", "error_class", "error", "result"))
    assert during == [{"message_id": row_id, "claimed_at": during[0]["claimed_at"], **nothing}]
    assert during[0]["claimed_at"] > earlier["claimed_at"]
    assert report(session, row_id)["outcome"] == "succeeded"


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
