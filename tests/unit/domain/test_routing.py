"""Contents, sessions and the fan-out of one message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.access import NOBODY, Standing
from nanotasks.domain.content import Content
from nanotasks.domain.placement import HostLoad, choose_host
from nanotasks.domain.routing import (
    Action,
    ChatFacts,
    DropNote,
    MessageFacts,
    Routing,
    WiringFacts,
    decide_routing,
    decide_unwired,
)
from nanotasks.domain.sessions import effective_mode, session_place, thread_of

CHAT = ChatFacts("mg", is_group=True, unknown_sender_policy="strict", denied=False, supports_threads=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def wiring(group: str, mode: str = "pattern", *, ignored: str = "drop", scope: str = "all") -> WiringFacts:
    return WiringFacts(group, "shared", mode, "." if mode == "pattern" else None, scope, ignored)


def decide(*wirings: WiringFacts, text: str = "hello", standing: Standing = NOBODY, mention: bool = False) -> Routing:
    message = MessageFacts("chat", Content({"text": text}), None, mention, "file:1", standing)
    return decide_routing(
        message, CHAT, wirings, thread_engaged=lambda _place: False, matches=lambda pattern, said: pattern in said
    )


def actions(routing: Routing) -> dict[str, Action]:
    return {outcome.agent_group_id: outcome.action for outcome in routing.outcomes}


def test_every_agent_decides_for_itself() -> None:
    """One is woken, one overhears, one refuses the sender, one is not meant."""
    member = Standing(member_of=frozenset({"a"}))
    routing = decide(
        wiring("b"), wiring("a"), wiring("c", "mention", ignored="accumulate"), wiring("d", "mention"), standing=member
    )
    assert actions(routing) == {"a": Action.WAKE, "c": Action.CONTEXT}
    assert routing.drop == DropNote("unknown_sender_strict", "b", "file:1")
    assert routing.routed


def test_the_first_refusal_is_the_reason() -> None:
    """A message is counted once, with the first agent that refused its sender."""
    assert decide(wiring("b"), wiring("a")).drop == DropNote("unknown_sender_strict", "b", "file:1")


def test_what_a_refused_sender_says_is_not_kept() -> None:
    """Accumulating is for messages that were not meant, not for people who may not talk."""
    routing = decide(wiring("a", ignored="accumulate"))
    assert routing.outcomes == ()


def test_nobody_engaged() -> None:
    """The general reason stands only where there is no better one."""
    assert decide(wiring("a", "mention")).drop == DropNote("no_agent_engaged", user_id="file:1")


@pytest.mark.parametrize(
    ("session_mode", "supports_threads", "sticks"),
    [("per-thread", True, True), ("shared", True, True), ("agent-shared", True, False), ("shared", None, False)],
)
def test_only_a_thread_with_a_session_of_its_own_sticks(
    session_mode: str, supports_threads: bool | None, sticks: bool
) -> None:
    """In a group with threads every thread has one, but for agents that keep one session for everything."""
    chat = ChatFacts(
        "mg", is_group=True, unknown_sender_policy="public", denied=False, supports_threads=supports_threads
    )
    message = MessageFacts("chat", Content({"text": "and you?"}), "t1", False, "file:1", NOBODY)
    listens = WiringFacts("a", session_mode, "mention-sticky", None, "all", "drop")
    routing = decide_routing(
        message, chat, [listens], thread_engaged=lambda _place: True, matches=lambda _pattern, _said: False
    )
    assert bool(routing.outcomes) == sticks


@pytest.mark.parametrize(
    ("text", "ignored", "expected", "reason"),
    [
        ("/help", "drop", Action.FILTER, "command_filtered"),
        ("/clear", "drop", Action.REFUSE, "command_refused"),
        ("/anything", "drop", Action.WAKE, None),
    ],
)
def test_commands(text: str, ignored: str, expected: Action, reason: str | None) -> None:
    """A command that goes no further leaves its reason."""
    routing = decide(wiring("a", ignored=ignored), text=text, standing=Standing(member_of=frozenset({"a"})))
    assert actions(routing) == {"a": expected}
    assert (routing.drop.reason if routing.drop else None) == reason


def test_overheard_commands_are_gated_too() -> None:
    """A command among the chatter is not kept for later."""
    assert actions(decide(wiring("a", "mention", ignored="accumulate"), text="/help")) == {"a": Action.FILTER}


@pytest.mark.parametrize(
    ("denied", "mention", "reason"),
    [
        (None, False, "not_mentioned"),
        (None, True, "no_agent_wired"),
        (True, True, "chat_denied"),
        (True, False, "not_mentioned"),
    ],
)
def test_where_nobody_listens(denied: bool | None, mention: bool, reason: str) -> None:
    """Chatter is not meant; a mention asks to be wired, unless that was denied."""
    chat = None if denied is None else ChatFacts("mg", True, "strict", denied, None)
    assert decide_unwired(chat, is_mention=mention) == Routing(drop=DropNote(reason))


@pytest.mark.parametrize(
    ("mode", "supports_threads", "is_group", "expected"),
    [
        ("shared", True, True, "per-thread"),
        ("per-thread", True, True, "per-thread"),
        ("agent-shared", True, True, "agent-shared"),
        ("shared", True, False, "shared"),
        ("shared", False, True, "shared"),
        ("per-thread", False, True, "per-thread"),
        ("shared", None, True, "shared"),
    ],
)
def test_effective_session_mode(mode: str, supports_threads: bool | None, is_group: bool, expected: str) -> None:
    """Threads are the unit of conversation in groups of channels that have them."""
    assert effective_mode(mode, supports_threads=supports_threads, is_group=is_group) == expected


@pytest.mark.parametrize(
    ("thread", "supports_threads", "expected"),
    [("t", True, "t"), ("t", False, None), ("t", None, "t"), ("", True, None), (None, True, None)],
)
def test_thread_policy(thread: str | None, supports_threads: bool | None, expected: str | None) -> None:
    """A channel without threads has none, whatever it says; an unknown one is believed."""
    assert thread_of(thread, supports_threads) == expected


def test_places_of_sessions() -> None:
    """Without a thread a per-thread wiring has the shared session; agent-shared is a place of its own."""
    shared = session_place("shared", "a", "mg", "t")
    assert session_place("per-thread", "a", "mg", None) == shared
    keys = {
        shared.route_key,
        session_place("per-thread", "a", "mg", "t").route_key,
        session_place("agent-shared", "a", "mg", "t").route_key,
        session_place("shared", "b", "mg", "t").route_key,
        session_place("shared", "a", "other", "t").route_key,
    }
    assert len(keys) == 5
    assert session_place("shared", "a", None, None) == session_place("agent-shared", "a", "mg", "t")


@given(st.tuples(st.text(), st.text(), st.text(min_size=1)), st.tuples(st.text(), st.text(), st.text(min_size=1)))
def test_different_places_have_different_keys(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """No ids, however odd, run into each other."""
    keys = {session_place("per-thread", *place).route_key for place in (one, other)}
    assert (len(keys) == 1) is (one == other)


@pytest.mark.parametrize(
    ("content", "text", "user_id", "name", "label"),
    [
        ({"text": "t", "senderId": "9", "sender": "S", "senderName": "N"}, "t", "file:9", "N", "S"),
        ({"text": "t", "sender": "S"}, "t", "file:S", None, "S"),
        ({"author": {"userId": "9", "userName": "u"}}, "", "file:9", "u", None),
        ({"author": {"userId": "9", "fullName": "F", "userName": "u"}, "senderId": 7}, "", "file:9", "F", None),
        ({"senderId": "tg:9"}, "", "tg:9", None, None),
        ({"senderId": "", "sender": "S"}, "", None, None, "S"),
        ({"text": 5}, "5", None, None, None),
        ({"text": True}, "true", None, None, None),
        ({"text": 1.0}, "1", None, None, None),
        ({"text": [1, None, "x"]}, "1,,x", None, None, None),
        ({"text": {}}, "[object Object]", None, None, None),
        ({"author": "x", "text": None}, "", None, None, None),
        ([], "", None, None, None),
        (5, "", None, None, None),
        ("a string", "", None, None, None),
        ({"senderId": "a\0b", "senderName": "half \ud83d", "text": "\ud83d"}, "\ud83d", "file:ab", "half ?", None),
    ],
)
def test_reading_content(content: Any, text: str, user_id: str | None, name: str | None, label: str | None) -> None:
    """The first field that is a text counts; anything else says nothing."""
    said = Content.parse(json.dumps(content))
    assert (said.text, said.sender.user_id("file")) == (text, user_id)
    assert (said.sender.display_name, said.sender.label, said.is_empty) == (name, label, False)


def test_content_that_is_no_json() -> None:
    """It is text as a whole, and may be a command."""
    said = Content.parse("/clear now")
    assert (said.text, said.command_text, said.sender.handle) == ("/clear now", "/clear now", None)


def test_a_text_that_is_nested_too_deeply() -> None:
    """A field that is no text, and a trap, is no text."""
    nested: Any = "x"
    for _ in range(5000):
        nested = [nested]
    assert Content({"text": nested}).text == ""


def test_null_is_no_content() -> None:
    """JSON's null is a message without anything in it."""
    assert Content.parse("null").is_empty


@given(JSON)
def test_any_content_can_be_read(value: Any) -> None:
    """No shape of content raises."""
    said = Content.parse(json.dumps(value))
    assert isinstance(said.text, str) and isinstance(said.command_text, str)
    assert said.sender.user_id("file") is None or ":" in (said.sender.user_id("file") or "")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ([], None),
        ([HostLoad("a", 0, 0)], None),
        ([HostLoad("b", 1, 10), HostLoad("a", 1, 10)], "a"),
        ([HostLoad("a", 2, 10), HostLoad("b", 3, 20)], "b"),
        ([HostLoad("a", 50, 10)], "a"),
    ],
)
def test_placement(hosts: list[HostLoad], expected: str | None) -> None:
    """The fewest groups for its capacity, by id among equals."""
    assert choose_host(hosts) == expected
