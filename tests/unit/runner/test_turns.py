"""The runner with a scripted provider: claims, follow-ups, nudges, commands, failures."""

from __future__ import annotations

import datetime
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent_runner import log, loop, tools
from agent_runner.config import Config
from agent_runner.failures import NETWORK, OTHER, SESSION, ProviderError
from agent_runner.outbound import REPLYING_TO
from agent_runner.paths import Workspace
from agent_runner.providers.contract import Activity, Init, Notice, Result, ToolEnded, ToolStarted
from agent_runner.providers.mock import MockProvider
from tests.unit.runner.by_hand import FAMILY, WORK, SessionByHand, chat
from tests.unit.runner.conftest import ENDS, Running, ScriptedProvider

Start = Callable[..., Running]
OK = '<message to="family">ok</message>'


class Gate:
    """Holds a turn until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> None:
        self.entered.set()
        assert self._opened.wait(10)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Gate:
    return Gate()


def test_a_message_is_answered(session: SessionByHand, start: Start) -> None:
    """Reply, reference and ack."""
    row = session.post()
    start(ScriptedProvider(lambda text: [OK]))
    session.wait_done(row)
    (sent,) = session.sent()
    assert (sent["in_reply_to"], sent["platform_id"], json.loads(sent["content"])) == (row, "tg:100", {"text": "ok"})


def test_a_message_that_arrives_later_is_answered_too(session: SessionByHand, start: Start) -> None:
    """By the same runner, in the same query."""
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert len(provider.queries) == 1
    assert len(session.sent()) == 2


def test_the_mock_provider_goes_round(session: SessionByHand, start: Start) -> None:
    """Two rows, one reply."""
    rows = [session.post(), session.post()]
    start(MockProvider(reply=lambda text: OK))
    session.wait_done(*rows)
    assert len(session.sent()) == 1


def test_rows_and_ack_are_one_commit(session: SessionByHand, start: Start) -> None:
    """Nobody ever sees the reply without the ack or the ack without the reply."""
    broken: list[object] = []
    stop = threading.Event()

    def observe() -> None:
        query = (
            "SELECT (SELECT count(*) FROM messages_out) AS rows,"
            " (SELECT count(*) FROM processing_ack WHERE status = 'completed') AS acks"
        )
        while not stop.is_set():
            (seen,) = session.read(query)
            if seen["rows"] != seen["acks"]:
                broken.append(seen)

    observer = threading.Thread(target=observe)
    observer.start()
    start(ScriptedProvider(lambda text: [OK]))
    for _ in range(20):
        session.wait_done(session.post())
    stop.set()
    observer.join()
    assert broken == []


def test_a_follow_up_is_acked_when_it_is_answered(session: SessionByHand, start: Start, gate: Gate) -> None:
    """Not when it is pushed: a crash in between would lose it."""
    turns: list[list[Any]] = [[gate, OK], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post(chat("first"))
    assert gate.entered.wait(5)
    second = session.post(chat("second"))
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    assert session.acks() == {first: "processing", second: "processing"}
    gate.open()
    session.wait_done(first, second)
    assert [row["in_reply_to"] for row in session.sent()] == [first, second]


def test_an_answer_to_several_inputs_acks_them_all(session: SessionByHand, start: Start, gate: Gate) -> None:
    """A provider that takes a follow-up into the running turn says so."""
    turns: list[list[Any]] = [[gate, Result(OK, answers=2)], []]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post()
    assert gate.entered.wait(5)
    second = session.post()
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    gate.open()
    session.wait_done(first, second)
    assert len(session.sent()) == 1


def test_claims_of_waiting_messages_stay_few(session: SessionByHand, start: Start, gate: Gate) -> None:
    """The rest stays pending while a turn runs, and is answered after it."""
    provider = ScriptedProvider(lambda text: [gate, OK])
    start(provider, config=Config(max_messages=1))
    rows = [session.post()]
    assert gate.entered.wait(5)
    rows += [session.post() for _ in range(9)]
    session.wait(lambda: len(provider.prompts) == 4, "pushes")
    assert len(session.acks()) == 4
    gate.open()
    session.wait_done(*rows)
    assert len(provider.prompts) == 10


def test_context_causes_no_turn_on_an_open_query(session: SessionByHand, start: Start) -> None:
    """It waits for the next question, and is shown with it."""
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(session.post())
    context = session.post(chat("chatter"), trigger=0)
    question = session.post(chat("well?"))
    session.wait_done(context, question)
    assert len(provider.prompts) == 2
    assert "chatter" in provider.prompts[1] and "well?" in provider.prompts[1]


def test_overtaken_context_is_acked_with_the_turn(session: SessionByHand, start: Start) -> None:
    """And never shown out of order."""
    rows = [session.post(chat(f"c{n}"), trigger=0) for n in range(5)]
    rows.append(session.post(chat("question")))
    provider = ScriptedProvider(lambda text: [OK])
    start(provider, config=Config(max_messages=3))
    session.wait_done(*rows)
    assert [f"c{n}" in provider.prompts[0] for n in range(5)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    "content", ["null", '{"text":5}', '{"text":"x","sender":5}', "not json", "[]", '{"text":"\\ud800"}']
)
def test_strange_content_holds_up_nobody(session: SessionByHand, start: Start, content: str) -> None:
    """It is prompted as what it is, with its neighbours."""
    rows = [session.post(), session.post(content), session.post(chat("neighbour"))]
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(*rows)
    assert set(session.acks().values()) == {"completed"}
    assert "neighbour" in provider.prompts[0]


def test_a_row_that_cannot_be_rendered_fails_alone(
    session: SessionByHand, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only rows that end as `failed`."""
    from agent_runner import clock

    show = clock.show
    monkeypatch.setattr(clock, "show", lambda stored, zone: show(stored, zone) if stored != "bad" else 1 / 0)
    bad, good = session.post(timestamp="bad"), session.post()
    start(ScriptedProvider(lambda text: [OK]))
    session.wait_done(bad, good)
    assert session.acks() == {bad: "failed", good: "completed"}


def test_a_row_of_an_unknown_kind_is_passed_over(session: SessionByHand, start: Start) -> None:
    """It says nothing, so it is no reason for a turn."""
    row = session.post(kind="telepathy")
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(row)
    assert provider.prompts == []


def test_system_rows_are_left_to_the_tools(session: SessionByHand, start: Start) -> None:
    """Never claimed, never prompted."""
    session.post("{}", kind="system")
    row = session.post()
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(row)
    assert list(session.acks()) == [row]
    assert "system_response" not in provider.prompts[0]


def test_a_bare_answer_is_nudged_once(session: SessionByHand, start: Start) -> None:
    """The second answer counts, whatever it is; the message is acked after that."""
    answers = iter(["bare", OK])
    provider = ScriptedProvider(lambda text: [next(answers)])
    start(provider)
    session.wait_done(session.post())
    assert session.texts() == ["ok"]
    assert "was not wrapped" in provider.prompts[1]


def test_there_is_no_second_nudge_for_a_message(session: SessionByHand, start: Start) -> None:
    """But one for the next message again."""
    provider = ScriptedProvider(lambda text: ["bare"])
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert [prompt.startswith("<system>") for prompt in provider.prompts] == [False, True, False, True]


def test_an_unknown_destination_is_named_in_the_nudge(session: SessionByHand, start: Start) -> None:
    """It was wrapped, so it is not told that it was not."""
    answers = iter(['<message to="nobody">x</message>', OK])
    provider = ScriptedProvider(lambda text: [next(answers)])
    start(provider)
    session.wait_done(session.post())
    assert 'no destination named "nobody"' in provider.prompts[1]
    assert "it was not wrapped" not in provider.prompts[1]


def test_one_delivered_block_is_enough(session: SessionByHand, start: Start) -> None:
    """No nudge for what was lost beside it."""
    provider = ScriptedProvider(lambda text: ['bare <message to="nobody">x</message>' + OK])
    start(provider)
    session.wait_done(session.post())
    assert session.texts() == ["ok"]
    assert len(provider.prompts) == 1


def test_after_a_send_in_the_turn_a_bare_answer_is_not_nudged(session: SessionByHand, start: Start) -> None:
    """A "done" after `send_message` would otherwise be said twice."""
    workspace = Workspace(str(session.workspace), str(session.agent_dir), "")

    def send() -> None:
        assert not tools.call(workspace, "send_message", {"to": "family", "text": "sent"}).is_error

    provider = ScriptedProvider(lambda text: [send, "done"])
    start(provider)
    row = session.post()
    session.wait_done(row)
    assert len(provider.prompts) == 1
    assert [(sent["in_reply_to"], json.loads(sent["content"])["text"]) for sent in session.sent()] == [(row, "sent")]


@pytest.mark.parametrize("text", [None, "", "<internal>nothing</internal>", "   "])
def test_silence_is_an_answer(session: SessionByHand, start: Start, text: str | None) -> None:
    """Nothing sent, no nudge."""
    provider = ScriptedProvider(lambda _: [text])
    start(provider)
    session.wait_done(session.post())
    assert session.sent() == []
    assert len(provider.prompts) == 1


def test_a_notice_is_no_answer(session: SessionByHand, start: Start) -> None:
    """A compaction in mid-turn neither acks nor nudges."""
    provider = ScriptedProvider(lambda text: [Activity(), Notice("Context compacted (5 tokens compacted)."), OK])
    start(provider)
    session.wait_done(session.post())
    assert session.texts() == ["ok"]
    assert len(provider.prompts) == 1


def test_what_is_said_after_the_answer_is_delivered(session: SessionByHand, start: Start) -> None:
    """Several results for one input are normal."""
    row = session.post()
    start(ScriptedProvider(lambda text: [OK, '<message to="work">also</message>']))
    session.wait(lambda: session.texts() == ["ok", "also"], "both texts")
    assert session.sent()[1]["in_reply_to"] == row


def test_a_message_while_nothing_is_asked_tells_nobody_a_reference(session: SessionByHand, start: Start) -> None:
    """Between turns there is no message that is answered."""
    start(ScriptedProvider(lambda text: [OK]))
    session.wait_done(session.post())
    workspace = Workspace(str(session.workspace), str(session.agent_dir), "")
    tools.call(workspace, "send_message", {"to": "family", "text": "by the way"})
    assert session.sent()[-1]["in_reply_to"] is None


def test_clear_forgets_the_conversation(session: SessionByHand, start: Start) -> None:
    """Answered by the runner, to the chat it came from; the provider never hears of it."""
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(session.post())
    assert session.state() == {"continuation:mock": "c1"}
    clear = session.post(chat("/clear"), channel_type="dc", platform_id="dc:g1", thread_id="th1")
    session.wait_done(clear)
    sent = session.sent()[-1]
    assert (sent["platform_id"], sent["thread_id"], sent["in_reply_to"]) == ("dc:g1", "th1", None)
    assert json.loads(sent["content"])["text"] == "Session cleared."
    assert session.state() == {}
    session.wait_done(session.post())
    assert [query.continuation for query in provider.queries] == [None, None]
    assert not any("/clear" in prompt for prompt in provider.prompts)


def test_clear_waits_for_the_running_turn(session: SessionByHand, start: Start, gate: Gate) -> None:
    """The query is ended, not killed; what came after the command is in the new conversation."""
    provider = ScriptedProvider(lambda text: [gate, OK])
    start(provider)
    first = session.post()
    assert gate.entered.wait(5)
    clear, after = session.post(chat("/clear")), session.post(chat("after"))
    gate.open()
    session.wait_done(first, clear, after)
    assert session.texts() == ["ok", "Session cleared.", "ok"]
    assert len(provider.queries) == 2


def test_an_unasked_clear_does_nothing(session: SessionByHand, start: Start) -> None:
    """A command that was only heard is context like everything else."""
    session.post(chat("/clear"), trigger=0)
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(session.post())
    assert session.texts() == ["ok"]
    assert "/clear" in provider.prompts[0]


def test_a_clear_with_context_only_is_no_turn(session: SessionByHand, start: Start) -> None:
    """The context keeps waiting."""
    context = session.post(chat("chatter"), trigger=0)
    clear = session.post(chat("/clear"))
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(clear)
    assert provider.prompts == []
    assert context not in session.acks()


def test_a_clear_without_address_answers_the_session(session: SessionByHand, start: Start) -> None:
    """And nobody where there is none."""
    session.routing("dc", "dc:g1", "th1")
    start(ScriptedProvider(lambda text: [OK]))
    session.wait_done(session.post(chat("/clear"), channel_type=None, platform_id=None))
    assert session.sent()[0]["platform_id"] == "dc:g1"


def test_native_commands_get_a_query_of_their_own(session: SessionByHand, start: Start) -> None:
    """They go in as they were typed, at the beginning of a query that goes on with the conversation."""
    provider = ScriptedProvider(lambda text: [OK], native_commands=True)
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post(chat("/compact now")))
    assert [(query.prompt.text, query.continuation) for query in provider.queries][1] == ("/compact now", "c1")


def test_other_providers_get_commands_as_text(session: SessionByHand, start: Start) -> None:
    """In the open query."""
    provider = ScriptedProvider(lambda text: [OK])
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post(chat("/compact now")))
    assert len(provider.queries) == 1
    assert ">/compact now</message>" in provider.prompts[1]


def test_an_error_is_told_to_who_asked(session: SessionByHand, start: Start) -> None:
    """Not to the chat of the oldest context row; in one commit with the ack."""
    context = session.post(channel_type="dc", platform_id="dc:g1", thread_id="th1", trigger=0)
    row = session.post(thread_id="th7")
    start(ScriptedProvider(lambda text: [ProviderError("it broke", OTHER)]))
    session.wait_done(context, row)
    (sent,) = session.sent()
    assert (sent["platform_id"], sent["thread_id"], json.loads(sent["content"])) == (
        "tg:100",
        "th7",
        {"text": "Error: it broke"},
    )
    assert session.acks() == {context: "completed", row: "completed"}


def test_everybody_who_asked_is_told_once(session: SessionByHand, start: Start) -> None:
    """Two chats, three questions."""
    rows = [session.post(), session.post(channel_type="dc", platform_id="dc:g1"), session.post()]
    start(ScriptedProvider(lambda text: [ValueError("x")]))
    session.wait_done(*rows)
    assert [row["platform_id"] for row in session.sent()] == ["tg:100", "dc:g1"]


def test_passing_trouble_is_tried_again(session: SessionByHand, start: Start) -> None:
    """Nobody hears of it when it passes."""
    turns: list[list[Any]] = [[ProviderError("reset", NETWORK)], [ConnectionResetError("reset")], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    row = session.post()
    start(provider)
    session.wait_done(row)
    assert session.texts() == ["ok"]
    assert len(provider.prompts) == 3
    assert provider.prompts[0] == provider.prompts[2]


def test_lasting_trouble_is_told_in_the_end(session: SessionByHand, start: Start) -> None:
    """After four more tries."""
    provider = ScriptedProvider(lambda text: [ProviderError("rate limit", "rate_limit", 0.01)])
    start(provider)
    session.wait_done(session.post())
    assert session.texts() == ["Error: rate limit"]
    assert len(provider.prompts) == 5


def test_a_stale_conversation_is_dropped_and_the_turn_repeated(session: SessionByHand, start: Start) -> None:
    """Once; the person gets an answer, not an error."""
    session.insert_outbound("session_state", [{"key": "continuation:mock", "value": "stale", "updated_at": ""}])
    provider = ScriptedProvider(lambda text: [OK], continuation=None)
    provider.script = lambda text: (
        [ProviderError("no conversation found", SESSION)] if provider.queries[-1].continuation else [OK]
    )
    start(provider)
    session.wait_done(session.post())
    assert [query.continuation for query in provider.queries] == ["stale", None]
    assert session.texts() == ["ok"]
    assert session.state() == {}


def test_a_conversation_that_is_always_stale_is_an_error(session: SessionByHand, start: Start) -> None:
    """Not an endless loop."""
    provider = ScriptedProvider(lambda text: [ProviderError("session x not found", SESSION)])
    start(provider)
    session.wait_done(session.post())
    assert len(provider.prompts) == 2
    assert session.texts() == ["Error: session x not found"]
    assert session.state() == {}


def test_a_conversation_survives_a_failed_turn(session: SessionByHand, start: Start) -> None:
    """What `init` stored is what the next query goes on with."""
    turns: list[list[Any]] = [[Init("c7"), ValueError("x")], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0), continuation=None)
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert [query.continuation for query in provider.queries] == [None, "c7"]


def test_a_result_may_move_the_conversation_on(session: SessionByHand, start: Start) -> None:
    """Stored with the turn."""
    start(ScriptedProvider(lambda text: [Result(OK, continuation="c9")]))
    session.wait_done(session.post())
    assert session.state() == {"continuation:mock": "c9"}


def test_follow_ups_of_a_failed_turn_are_answered(session: SessionByHand, start: Start, gate: Gate) -> None:
    """They were not what failed: their claims are given back, and they are prompted again."""
    turns: list[list[Any]] = [[gate, ValueError("x")], [OK], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post()
    assert gate.entered.wait(5)
    second = session.post(chat("second"))
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    gate.open()
    session.wait_done(first, second)
    assert session.texts() == ["Error: x", "ok"]


def test_follow_ups_of_a_query_that_ends_are_answered(session: SessionByHand, start: Start, gate: Gate) -> None:
    """No claim stays behind when a provider ends by itself."""
    turns: list[list[Any]] = [[gate, OK, ENDS], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post()
    assert gate.entered.wait(5)
    second = session.post(chat("second"))
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    gate.open()
    session.wait_done(first, second)
    assert session.texts() == ["ok", "ok"]
    assert len(provider.queries) == 2


def test_a_query_that_ends_without_a_word_is_an_answer(session: SessionByHand, start: Start) -> None:
    """What it was opened with had its chance; it is not asked for ever."""
    provider = ScriptedProvider(lambda text: [ENDS])
    start(provider)
    session.wait_done(session.post())
    assert len(provider.prompts) == 1


def test_a_provider_that_cannot_even_open_is_an_error(session: SessionByHand, start: Start) -> None:
    """Told like any other, and the runner goes on."""
    provider = ScriptedProvider(lambda text: [OK])
    open_query = provider.query
    failures = [ValueError("no such model")]

    def query(start: object) -> object:
        if failures:
            raise failures.pop()
        return open_query(start)  # type: ignore[arg-type]

    provider.query = query  # type: ignore[method-assign,assignment]
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert session.texts() == ["Error: no such model", "ok"]


def test_trouble_between_turns_concerns_nobody(session: SessionByHand, start: Start) -> None:
    """A connection that is lost while idle is opened again for the next message."""
    turns: list[list[Any]] = [[OK, ValueError("lost")], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert session.texts() == ["ok", "ok"]


def test_an_answer_replies_to_what_it_answers(session: SessionByHand, start: Start, gate: Gate) -> None:
    """Not to the message that came meanwhile and gets an answer of its own: the host tells by it who was answered."""
    turns: list[list[Any]] = [[gate, OK], [OK]]
    start(ScriptedProvider(lambda text: turns.pop(0)))
    first = session.post()
    assert gate.entered.wait(5)
    second = session.post()
    gate.open()
    session.wait_done(first, second)
    assert [row["in_reply_to"] for row in session.sent()] == [first, second]


def test_a_message_that_met_the_loss_of_a_query_is_asked_anew(session: SessionByHand, start: Start, gate: Gate) -> None:
    """It was pushed when the query was already lost: that failure is not its own."""
    turns: list[list[Any]] = [[OK, gate, ValueError("lost")], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    session.wait_done(session.post())
    assert gate.entered.wait(5)
    second = session.post()
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    gate.open()
    session.wait_done(second)
    assert session.texts() == ["ok", "ok"]
    assert len(provider.queries) == 2


def test_a_pushed_message_that_fails_twice_is_an_error(session: SessionByHand, start: Start) -> None:
    """The second failure, of a query of its own, is told."""
    turns: list[list[Any]] = [[OK], [ValueError("refused")], [ValueError("refused")], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    session.wait_done(session.post())
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert session.texts() == ["ok", "Error: refused", "ok"]


def test_new_destinations_are_told_to_the_model(session: SessionByHand, start: Start) -> None:
    """The next turn has a system prompt that lists them, in the same conversation."""
    session.destinations(FAMILY)
    provider = ScriptedProvider(lambda text: [OK])
    start(provider, config=Config(assistant_name="Andy"))
    session.wait_done(session.post())
    session.wait_done(session.post())
    session.destinations(FAMILY, WORK)
    session.wait_done(session.post())
    assert [("`work`" in query.instructions, query.continuation) for query in provider.queries] == [
        (False, None),
        (True, "c1"),
    ]
    assert "# You are Andy" in provider.queries[0].instructions


def test_the_running_tool_is_in_container_state(session: SessionByHand, start: Start, gate: Gate) -> None:
    """While it runs."""
    turn = [ToolStarted("1", "Bash", 90_000), gate, ToolEnded("1"), OK]
    start(ScriptedProvider(lambda text: turn))
    row = session.post()
    query = "SELECT current_tool, tool_declared_timeout_ms FROM container_state"
    assert gate.entered.wait(5)
    assert session.read(query) == [{"current_tool": "Bash", "tool_declared_timeout_ms": 90_000}]
    gate.open()
    session.wait_done(row)
    assert session.read(query) == [{"current_tool": None, "tool_declared_timeout_ms": None}]


def test_a_failed_turn_leaves_no_tool_behind(session: SessionByHand, start: Start) -> None:
    """Its end is never reported."""
    start(ScriptedProvider(lambda text: [ToolStarted("1", "Bash", 90_000), ValueError("x")]))
    session.wait_done(session.post())
    query = "SELECT current_tool FROM container_state"
    session.wait(lambda: session.read(query) == [{"current_tool": None}], "no tool")


def test_every_event_is_a_sign_of_life(session: SessionByHand, start: Start, gate: Gate) -> None:
    """The heartbeat moves with the provider, not with time."""
    heartbeat = session.workspace / ".heartbeat"
    seen = []

    def look() -> None:
        seen.append(heartbeat.stat().st_mtime_ns)

    start(ScriptedProvider(lambda text: [Activity(), look, Activity(), look, gate, OK]))
    row = session.post()
    assert gate.entered.wait(5)
    assert seen[0] < seen[1]
    gate.open()
    session.wait_done(row)


def test_a_locked_file_is_waited_for(session: SessionByHand, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn's rows are committed when the file is free again, without asking the provider twice."""
    monkeypatch.setattr("agent_runner.sql.BUSY_TIMEOUT_S", 0.05)
    locker = sqlite3.connect(session.outbound, isolation_level=None, check_same_thread=False)
    provider = ScriptedProvider(lambda text: [lambda: locker.execute("BEGIN IMMEDIATE"), OK], continuation=None)
    running = start(provider)
    row = session.post()
    session.wait(lambda: running.trouble, "trouble")
    locker.execute("COMMIT")
    session.wait_done(row)
    locker.close()
    assert session.texts() == ["ok"]
    assert len(provider.prompts) == 1


def test_files_that_are_not_there_yet_are_waited_for(session: SessionByHand, start: Start) -> None:
    """A runner may be quicker than its host."""
    away = session.inbound.with_name("away")
    session.inbound.rename(away)
    running = start(ScriptedProvider(lambda text: [OK]))
    session.wait(lambda: running.trouble, "trouble")
    away.rename(session.inbound)
    session.wait_done(session.post())


def test_without_inotify_messages_are_found_by_looking(session: SessionByHand, start: Start) -> None:
    """Within a second."""
    start(ScriptedProvider(lambda text: [OK]), use_inotify=False)
    session.wait_done(session.post())
    session.wait_done(session.post(), seconds=3)


def test_a_message_is_taken_when_its_time_comes(
    session: SessionByHand, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop wakes for it, and not only at its next look; due times count to the second (NanoClaw 2's rule)."""
    monkeypatch.setattr(loop, "IDLE_LOOK_S", 30.0)
    taken: list[float] = []

    def script(text: str) -> list[Any]:
        taken.append(time.time())
        return [OK]

    start(ScriptedProvider(script))
    first = int(time.time()) + 2
    due = [datetime.datetime.fromtimestamp(first + later, datetime.UTC) for later in range(3)]
    rows = [session.post(process_after=at.strftime("%Y-%m-%dT%H:%M:%S.700Z")) for at in due]
    session.wait_done(*rows)
    late = [at - (first + later) for later, at in enumerate(taken)]
    assert len(late) == 3
    assert all(0 <= one < 0.3 for one in late), late


def test_a_stop_leaves_the_claim(session: SessionByHand, start: Start, gate: Gate) -> None:
    """The next start gives it back and answers."""
    provider = ScriptedProvider(lambda text: [gate, OK])
    running = start(provider)
    row = session.post()
    assert gate.entered.wait(5)
    running.stop()
    assert session.acks() == {row: "processing"}
    assert session.state()[REPLYING_TO] == row
    gate.open()
    start(ScriptedProvider(lambda text: [OK]))
    session.wait_done(row)
    assert session.texts() == ["ok"]
    assert REPLYING_TO not in session.state()


def test_a_nudge_lets_the_next_message_be_answered_first(session: SessionByHand, start: Start, gate: Gate) -> None:
    """Its answer comes after what was pushed before the nudge, and tools refer to the right message meanwhile."""
    seen: list[str] = []
    turns: list[list[Any]] = [
        [gate, "bare"],
        [lambda: seen.append(session.state()[REPLYING_TO]), '<message to="work">second</message>'],
        [lambda: seen.append(session.state()[REPLYING_TO]), '<message to="work">first</message>'],
    ]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post()
    assert gate.entered.wait(5)
    second = session.post(chat("second"))
    session.wait(lambda: len(provider.prompts) == 2, "a push")
    gate.open()
    session.wait_done(first, second)
    assert session.texts() == ["second", "first"]
    assert [row["in_reply_to"] for row in session.sent()] == [second, first]
    assert seen == [second, first]


def test_a_provider_that_wants_to_exit_only_fails_its_turn(session: SessionByHand, start: Start) -> None:
    """The runner decides when the process ends."""
    turns: list[list[Any]] = [[lambda: exit_like_a_library()], [OK]]
    start(ScriptedProvider(lambda text: turns.pop(0)))
    session.wait_done(session.post())
    session.wait_done(session.post())
    assert session.texts() == ["Error: SystemExit", "ok"]


def exit_like_a_library() -> None:
    raise SystemExit


def test_a_file_that_looks_damaged_for_a_moment_ends_no_turn(
    session: SessionByHand, start: Start, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read while it is replaced, or torn across a share; the answer is committed when it is whole again."""
    met = threading.Event()
    monkeypatch.setattr(log, "warning", lambda event, **_facts: met.set() if event == "files_unusable" else None)
    start(ScriptedProvider(lambda text: [gate, OK]))
    row = session.post()
    assert gate.entered.wait(5)
    whole, torn = session.inbound.with_suffix(".whole"), session.inbound.with_suffix(".torn")
    torn.write_bytes(b"torn" * 256)
    session.inbound.rename(whole)
    torn.rename(session.inbound)
    gate.open()
    assert met.wait(10)
    whole.rename(session.inbound)
    session.wait_done(row)
    assert session.texts() == ["ok"]


def test_a_row_whose_claim_was_taken_away_is_not_asked_twice(session: SessionByHand, start: Start, gate: Gate) -> None:
    """A host that believed this runner dead deletes its claims, while it is at work on them."""
    turns: list[list[Any]] = [[gate, OK], [OK]]
    provider = ScriptedProvider(lambda text: turns.pop(0))
    start(provider)
    first = session.post(chat("first"))
    assert gate.entered.wait(5)
    session.delete_claims()
    second = session.post(chat("second"))
    session.wait(lambda: len(provider.prompts) == 2, "the second is pushed")
    gate.open()
    session.wait_done(first, second)
    assert ["first" in prompt for prompt in provider.prompts] == [True, False]
    assert session.texts() == ["ok", "ok"]
