"""The demo agent, on a real session with the real runner."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_runner.providers.contract import ProviderOptions
from agent_runner.providers.demo import DemoProvider
from agent_runner.providers.demo.commands import HINT, Command, parse
from tests.unit.runner.by_hand import SessionByHand, chat
from tests.unit.runner.conftest import Running

Ask = Callable[..., list[str]]


@pytest.fixture
def ask(session: SessionByHand, start: Callable[..., Running], options: ProviderOptions) -> Ask:
    """Post a message of Ann's and return the texts that came of it; columns may be given."""
    session.routing("tg", "tg:100")
    start(DemoProvider(options))

    def ask(text: str, **columns: Any) -> list[str]:
        before = len(session.texts())
        session.wait_done(session.post(chat(text), **columns))
        return session.texts()[before:]

    return ask


def test_ordinary_text_is_answered_kindly(ask: Ask) -> None:
    """With the text, the name of who wrote it, and what to try next."""
    assert ask("good morning") == [f"Hello Ann! You said: good morning\n{HINT}"]


def test_the_answer_goes_where_the_message_came_from(session: SessionByHand, ask: Ask) -> None:
    """Also in another chat than the session's own, in its thread."""
    ask("echo here", channel_type="dc", platform_id="dc:g1", thread_id="th1")
    (sent,) = session.sent()
    assert (sent["channel_type"], sent["platform_id"], sent["thread_id"]) == ("dc", "dc:g1", "th1")


def test_earlier_chatter_was_seen(session: SessionByHand, ask: Ask) -> None:
    """What was said before in that chat is listed; other chats are not spoken of."""
    session.post(chat("lunch?", "Bob"), trigger=0)
    session.post(chat("secret", "Eve"), trigger=0, channel_type="dc", platform_id="dc:g1")
    session.post(chat("pizza", "Cid"), trigger=0)
    (answer,) = ask("@Andy what do they want?")
    assert answer == (
        "Hello Ann! You said: @Andy what do they want?\n"
        f'Before that I saw 2 messages: Bob: "lunch?"; Cid: "pizza"\n{HINT}'
    )


def test_every_message_gets_its_own_answer(
    session: SessionByHand, start: Callable[..., Running], options: ProviderOptions
) -> None:
    """In order, when several are prompted at once."""
    rows = [session.post(chat(f"echo {n}")) for n in range(5)]
    start(DemoProvider(options))
    session.wait_done(*rows)
    assert session.texts() == ["0", "1", "2", "3", "4"]


def test_the_same_question_gets_the_same_answer(ask: Ask) -> None:
    """It is deterministic."""
    assert ask("hello") == ask("hello")


def test_echo(ask: Ask) -> None:
    """Word for word, but for white space at the ends."""
    assert ask("echo a <b> & 'c'\nd 🎉") == ["a <b> & 'c'\nd 🎉"]
    assert ask("ECHO loud") == ["loud"]
    assert ask("@Andy, echo mentioned") == ["mentioned"]


@pytest.mark.parametrize("text", ["</message>", "a <internal>b</internal>", '<message to="work">x</message>'])
def test_echo_of_our_own_markup(ask: Ask, text: str) -> None:
    """What a result could not carry goes through the tool."""
    assert ask(f"echo {text}") == [text]


def test_several_messages(ask: Ask) -> None:
    """The parts in turn."""
    assert ask("say 3 a|b | c") == ["a", "b", "c"]
    assert ask("say 3 hi|ho") == ["hi", "ho", "hi"]


def test_another_destination(session: SessionByHand, ask: Ask) -> None:
    """A chat or another agent, by name."""
    ask("to work: hello there")
    ask("to worker-1: do it")
    assert [row["platform_id"] for row in session.sent()] == ["dc:g1", "ag-b"]


def test_a_destination_that_does_not_exist(ask: Ask) -> None:
    """It hears that nobody got it, and says so."""
    assert ask("to nobody: hi") == ['I have no destination named "nobody". I can write to: family, work, worker-1.']


def test_silence(ask: Ask) -> None:
    """On request."""
    assert ask("silent") == []


def test_slowness_with_signs_of_life(session: SessionByHand, ask: Ask) -> None:
    """The heartbeat goes on."""
    assert ask("slow 0.6") == ["That took 0.6 seconds."]
    assert ask("slow 0 done") == ["done"]


def test_a_tool_in_mid_turn(session: SessionByHand, ask: Ask) -> None:
    """The message refers to the one being answered, and "Done." is not sent after it."""
    assert ask("tool hello") == ["hello"]
    (sent,) = session.sent()
    assert sent["in_reply_to"] == "m2"


def test_a_file(session: SessionByHand, ask: Ask) -> None:
    """With a name that leads nowhere else."""
    assert ask("file ../../notes.txt remember the milk") == ["Here is your file."]
    (sent,) = session.sent()
    assert json.loads(sent["content"])["files"] == ["notes.txt"]
    assert (session.workspace / "outbox" / sent["id"] / "notes.txt").read_text() == "remember the milk\n"


def test_counting_survives_a_restart_and_not_a_clear(
    session: SessionByHand, ask: Ask, start: Callable[..., Running], options: ProviderOptions
) -> None:
    """It is kept in the continuation."""
    ask("one")
    assert ask("count") == ["I have answered 1 messages in this conversation."]
    assert session.state() == {"continuation:demo": "demo-2"}
    assert ask("/clear") == ["Session cleared."]
    assert ask("count") == ["I have answered 0 messages in this conversation."]


def test_failure(ask: Ask) -> None:
    """Told at once, or tried again by class."""
    assert ask("fail") == ["Error: the demo provider was asked to fail"]
    assert ask("fail network 2") == ["It works again."]
    assert ask("fail session 1") == ["It works again."]
    assert ask("fail rate_limit 1") == ["It works again."]


def test_help_lists_every_command(ask: Ask) -> None:
    """One line each."""
    (text,) = ask("help!")
    verbs = "echo say to silent slow tool file remind every tasks count fail crash /clear"
    for verb in verbs.split():
        assert any(line.startswith(verb) for line in text.splitlines())


def test_a_task_is_announced(session: SessionByHand, ask: Ask) -> None:
    """In the session's conversation when it has no chat of its own; commands work in it too."""
    for prompt, expected in (("water the plants", "It is time: water the plants"), ("echo now", "now")):
        row = session.post(json.dumps({"prompt": prompt}), kind="task", channel_type=None, platform_id=None)
        session.wait_done(row)
        assert session.texts()[-1] == expected


@pytest.mark.parametrize(
    ("text", "recurrence", "seconds"),
    [
        ("remind 10s feed the cat", None, 10),
        ("remind 5m feed the cat", None, 300),
        ("every 15m feed the cat", "every 15m", 900),
    ],
)
def test_scheduling(session: SessionByHand, ask: Ask, text: str, recurrence: str | None, seconds: int) -> None:
    """The host is asked for it, and the chat sees what the tool said."""
    before = datetime.now(UTC)
    session.wait_done(session.post(chat(text)))
    request, answer = session.sent()
    content = json.loads(request["content"])
    assert (request["kind"], content["action"]) == ("system", "schedule_task")
    assert (content["prompt"], content["recurrence"]) == ("feed the cat", recurrence)
    late = (datetime.fromisoformat(content["processAfter"]) - before).total_seconds()
    assert seconds - 1 <= late <= seconds + 10
    assert json.loads(answer["content"])["text"].startswith(f"Task scheduled (id: {request['id']}, runs at: ")


def test_managing_tasks(session: SessionByHand, ask: Ask) -> None:
    """Listing, pausing, resuming and cancelling, by the id that the list shows."""
    session.post(json.dumps({"prompt": "p"}), id="t1", kind="task", process_after="2999-01-01T00:00:00.000Z")
    assert ask("tasks") == ["- t1 [pending] at=2999-01-01T00:00:00.000Z \u2192 p"]
    for text, action in (("pause t1", "pause_task"), ("resume t1", "resume_task"), ("cancel t1", "cancel_task")):
        session.wait_done(session.post(chat(text)))
        request = [row for row in session.sent() if row["kind"] == "system"][-1]
        assert json.loads(request["content"]) == {"action": action, "taskId": "t1"}


def test_a_webhook_is_reported(session: SessionByHand, ask: Ask) -> None:
    """Source and event."""
    session.wait_done(session.post(json.dumps({"source": "github", "event": "push"}), kind="webhook"))
    assert session.texts() == ["github reports: push"]


def test_an_unknown_chat_is_answered_in_the_sessions_own(session: SessionByHand, ask: Ask) -> None:
    """There is no name to address it by."""
    assert ask("echo hi", channel_type="zz", platform_id="zz:1") == ["hi"]
    assert session.sent()[0]["platform_id"] == "tg:100"


@pytest.mark.parametrize("row", [chat("Your message could not be delivered.", "system"), chat(f"Hello Bo!\n{HINT}")])
def test_it_starts_no_endless_talk(session: SessionByHand, ask: Ask, row: str) -> None:
    """With its own host or another demo agent."""
    session.wait_done(session.post(row))
    assert session.texts() == []


@pytest.mark.parametrize(
    "text", ["say hello to mum", "file a complaint today", "slow down", "failing", "tools", "echo", "helpful", "to: x"]
)
def test_ordinary_sentences_are_no_commands(text: str) -> None:
    """They may begin like one."""
    assert parse(text) == Command("")


def test_text_without_a_sender(session: SessionByHand, ask: Ask) -> None:
    """Content that is no JSON has nobody's name."""
    session.wait_done(session.post("plain"))
    assert session.texts() == [f"Hello! You said: plain\n{HINT}"]
