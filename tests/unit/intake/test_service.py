"""Routing: order, isolation of what fails, and what two routers do at once, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, select, text, update

from nanotasks.central.chats import Chat
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Address
from nanotasks.intake import record, service
from nanotasks.intake.pending import PendingEvent
from nanotasks.intake.placement import place_waiting
from nanotasks.intake.service import TypingTarget
from nanotasks.testing import wait_for

if TYPE_CHECKING:
    from .conftest import House


def fail_on(poison: str) -> Any:
    """An interceptor that cannot bear one text."""

    def take(_connection: Connection, _chat: tuple[str, str], event: PendingEvent) -> bool:
        if event.content.text == poison:
            raise RuntimeError("this event is poisonous")
        return False

    return take


def deliveries(house: House) -> list[Delivery]:
    with house.db.read() as session:
        return list(session.scalars(select(Delivery)))


def make_due(house: House, event_id: str) -> None:
    with house.db.write() as session:
        session.execute(update(InboundEvent).where(InboundEvent.id == event_id).values(next_try_at=1))


def waits_for_a_lock(house: House) -> bool:
    """Whether somebody waits for a lock in this PostgreSQL database."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with house.db.read() as session:
        return bool(session.scalar(text(waiting)))


def test_a_message_wakes_the_agent_that_listens(house: House) -> None:
    """The result says which session on which host, and where to show that it is at work."""
    house.furnish()
    event_id = house.say(thread="ignored")
    result = house.route()
    (session,) = house.sessions()
    assert result.touched == {session.id: service.Touched(session.id, "here", True)}
    assert result.typing == [TypingTarget(session.id, "ag-andy", "here", Address("file", "family", None))]
    assert (house.event(event_id).state, result.events, result.more) == ("routed", 1, False)
    assert [(route.inbound_id, route.trigger, route.state) for route in house.routes()] == [
        ("m1:ag-andy", 1, "pending")
    ]


def test_every_pending_message_is_routed_in_accept_order(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches are one order."""
    monkeypatch.setattr(service, "BATCH", 7)
    house.furnish("andy", "bea")
    events = [house.say(f"number {number}") for number in range(30)]
    result = house.route()
    assert result.events == 30
    for agent in ("ag-andy", "ag-bea"):
        assert [route.event_id for route in house.routes() if route.agent_group_id == agent] == events


def test_routing_again_finds_nothing(house: House) -> None:
    """A signal that comes twice does its work once."""
    house.furnish()
    house.say()
    house.route()
    assert house.route().events == 0
    assert len(house.routes()) == 1


def test_an_empty_chat_is_no_work(house: House) -> None:
    """A signal for a chat that nobody ever wrote in does nothing."""
    assert house.route("nowhere").events == 0


def test_a_backlog_shows_typing_once(small_house: House) -> None:
    """Many messages for one session are one indicator, at the latest thread, and one subscription."""
    small_house.threads = True
    small_house.furnish(session_mode="agent-shared", engage_mode="mention-sticky", engage_pattern=None)
    for thread in ("t1", "t2", "t2"):
        small_house.say(thread=thread, is_mention=True)
    result = small_house.route()
    assert [one.address.thread_id for one in result.typing] == ["t2"]
    assert [address.thread_id for address in result.subscriptions] == ["t1", "t2"]


def test_reply_to_is_where_answers_go(house: House) -> None:
    """The address in reply_to replaces the chat's own in the rows; typing stays where the message came from."""
    house.furnish()
    house.say(reply_to=Address("terminal", "local", "t9"))
    result = house.route()
    (route,) = house.routes()
    assert (route.reply_channel_type, route.reply_platform_id, route.reply_thread_id) == ("terminal", "local", "t9")
    assert result.typing[0].address == Address("file", "family", None)


def test_an_edited_message_is_a_second_row(house: House) -> None:
    """The second text under one platform id does not push the first one out."""
    house.furnish()
    for text_ in ("hello", "hello, corrected", "hello, corrected again"):
        house.say(text_, message_id="same")
    house.append(house.route())
    (session,) = house.sessions()
    assert [row["id"] for row in house.rows(session)] == ["same:ag-andy", "same:ag-andy~2", "same:ag-andy~3"]
    assert house.texts(session) == ["hello", "hello, corrected", "hello, corrected again"]


def test_one_id_in_two_chats_of_a_shared_agent(house: House) -> None:
    """Two chats of an agent-shared session may use the same ids."""
    house.furnish(session_mode="agent-shared")
    house.chat("work")
    house.wire("andy", "work", session_mode="agent-shared")
    for chat in ("family", "work"):
        house.say(chat, chat=chat, message_id="m1")
        house.append(house.route(chat))
    (session,) = house.sessions()
    assert [row["id"] for row in house.rows(session)] == ["m1:ag-andy", "m1:ag-andy~2"]


def test_senders_with_impossible_names_are_routed(house: House) -> None:
    """A name that no database can hold is stored as far as it can be, and harms nobody."""
    house.furnish()
    event_id = house.say("\ud83d\0", content={"senderId": "a\0b", "senderName": "half \ud83d", "sender": "\ud83d"})
    house.append(house.route())
    assert house.event(event_id).state == "routed"
    assert house.texts(house.sessions()[0]) == ["\ud83d\0"]


def test_a_damaged_event_is_dead_and_no_more(house: House) -> None:
    """An event that somebody damaged in the database fails, and the chat goes on without it."""
    house.furnish()
    bad, good = house.say("bad"), house.say("good")
    with house.db.write() as session:
        session.execute(update(InboundEvent).where(InboundEvent.id == bad).values(reply_to="not an address"))
    for _ in range(3):
        house.route()
        make_due(house, bad)
    assert (house.event(bad).state, house.event(good).state) == ("dead", "routed")


def test_a_failing_event_is_tried_three_times_and_then_dead(house: House) -> None:
    """The chat waits for it twice, is told, and goes on; the event keeps its error and can be listed."""
    house.furnish()
    house.say("before")
    house.append(house.route())
    bad, after = house.say("poison"), house.say("after")
    for failures in (1, 2):
        result = house.route(interceptors=[fail_on("poison")])
        assert (house.event(bad).tries, house.event(bad).state) == (failures, "pending")
        assert result.retry_at_ms is None and house.event(after).state == "pending"
        waiting = house.route(interceptors=[fail_on("poison")])
        assert waiting.retry_at_ms == house.event(bad).next_try_at
        make_due(house, bad)
    result = house.route(interceptors=[fail_on("poison")])
    assert (house.event(bad).state, house.event(after).state) == ("dead", "routed")
    assert house.event(bad).error == "RuntimeError: this event is poisonous"
    (told,) = deliveries(house)
    assert (told.platform_id, told.state, told.message_out_id) == ("family", "pending", f"host-dead-{bad}")
    assert "set aside" in json.loads(told.content)["text"]
    assert result.answered == {house.sessions()[0].id: "here"}


def test_a_failure_long_ago_does_not_count(house: House) -> None:
    """Three failures count when they come within a minute."""
    house.furnish()
    bad = house.say("poison")
    with house.db.write() as session:
        session.execute(update(InboundEvent).values(tries=2, first_failed_at=1))
    house.route(interceptors=[fail_on("poison")])
    assert (house.event(bad).tries, house.event(bad).state) == (1, "pending")


def test_a_poisonous_event_fails_alone(house: House) -> None:
    """What came before it in the same batch is routed, and other chats go on."""
    house.furnish()
    house.chat("work")
    house.wire("andy", "work")
    good, bad, other = house.say("before"), house.say("poison"), house.say("other", chat="work")
    house.route(interceptors=[fail_on("poison")])
    house.route("work", interceptors=[fail_on("poison")])
    assert [house.event(one).state for one in (good, bad, other)] == ["routed", "pending", "routed"]


def test_an_event_whose_values_do_not_fit_fails_alone(house: House) -> None:
    """A server that refuses one row's values is not away: the row is set aside, and the chat goes on."""

    def write_too_much(connection: Connection, _chat: tuple[str, str], event: PendingEvent) -> bool:
        if event.content.text == "poison":
            assert connection.dialect.name == "postgresql", "a key has any length in SQLite"
            long_key = "INSERT INTO ticks SELECT string_agg(md5(n::text), ''), 1 FROM generate_series(1, 500) n"
            connection.execute(text(long_key))
        return False

    house.furnish()
    good, bad = house.say("before"), house.say("poison")
    house.route(interceptors=[write_too_much])
    assert [house.event(one).state for one in (good, bad)] == ["routed", "pending"]
    assert house.event(bad).tries == 1


def test_an_interceptor_consumes_a_message(house: House) -> None:
    """What an interceptor takes reaches no agent, and registers no chat."""
    event_id = house.say("for me", is_mention=True, chat="unknown")
    house.route("unknown", interceptors=[lambda _connection, _chat, event: event.content.text == "for me"])
    assert (house.event(event_id).state, house.drop(event_id)) == ("dropped", "intercepted")
    with house.db.read() as session:
        assert session.scalars(select(Chat)).all() == []


def test_a_slow_pattern_does_not_match_and_holds_nobody_up(house: House) -> None:
    """A pattern that explodes on a text is given up after its time; another agent still answers."""
    house.furnish("slow", engage_pattern="(x+x+)+y")
    house.agent("quick")
    house.wire("quick")
    house.say("x" * 5000)
    house.route()
    assert [route.agent_group_id for route in house.routes()] == ["ag-quick"]


def test_patterns_run_in_small_portions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little time there is, each look gets one message further."""
    monkeypatch.setattr(service, "_PATTERN_BUDGET_S", 0.0)
    house.furnish(engage_pattern="hello")
    for _ in range(5):
        house.say()
    assert house.route().events == 5


def test_a_long_backlog_is_left_to_the_next_signal(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task stays short: what it has no time for it reports."""
    monkeypatch.setattr(service, "_TIME_BUDGET_S", -1.0)
    house.furnish()
    event_id = house.say()
    assert house.route().more
    assert house.event(event_id).state == "pending"


def test_two_routers_of_one_chat(house: House) -> None:
    """Signals that come at the same time route each message once, in order."""
    house.furnish("andy", "bea")
    events = [house.say(f"number {number}") for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: house.route(), range(4)))
    assert sum(result.events for result in results) == 40
    assert all(result.retry_at_ms is None for result in results)
    assert [route.event_id for route in house.routes() if route.agent_group_id == "ag-bea"] == events


def test_two_chats_make_one_shared_session(house: House) -> None:
    """Routers of different chats that need the same session end with one."""
    house.furnish(session_mode="agent-shared")
    chats = [f"room{number}" for number in range(6)]
    for chat in chats:
        house.chat(chat)
        house.wire("andy", chat, session_mode="agent-shared")
        house.say(chat=chat)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(house.route, chats))
    (session,) = house.sessions()
    assert {route.session_id for route in house.routes()} == {session.id}
    assert len({route.inbound_id for route in house.routes()}) == 6


def test_two_chats_of_a_shared_session_never_take_one_id(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are routed at the same moment, and no message is taken for a repetition of the other."""
    if house.db.dialect == "sqlite":
        pytest.skip("SQLite lets one router write at a time")
    house.furnish(session_mode="agent-shared")
    house.chat("work")
    house.wire("andy", "work", session_mode="agent-shared")
    house.say("first", message_id="41")
    house.append(house.route())
    for chat in ("family", "work"):
        house.say(chat, chat=chat, message_id="42")
    choose, chosen = record._make_ids_unique, []

    def choose_together(connection: Connection, routes: Any) -> None:
        choose(connection, routes)
        chosen.append(routes)
        wait_for(lambda: len(chosen) == 2 or waits_for_a_lock(house), what="the other router has chosen, or waits")

    monkeypatch.setattr(record, "_make_ids_unique", choose_together)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(house.route, ("family", "work")))
    for result in results:
        house.append(result)
    (session,) = house.sessions()
    assert sorted(house.texts(session)) == ["family", "first", "work"]
    assert sorted(row["id"] for row in house.rows(session)) == ["41:ag-andy", "42:ag-andy", "42:ag-andy~2"]


def test_two_mentions_register_one_chat(house: House) -> None:
    """An unknown chat is registered at the first mention, for approval, and stays silent until it is wired."""
    first, second = house.say(is_mention=True, is_group=True), house.say(is_mention=True)
    house.route()
    with house.db.read() as session:
        (chat,) = session.scalars(select(Chat)).all()
    assert (chat.is_group, chat.unknown_sender_policy) == (1, "request_approval")
    assert house.drop(first) == house.drop(second) == "no_agent_wired"


@pytest.mark.parametrize(
    ("mention", "denied", "reason"),
    [(False, False, "not_mentioned"), (True, True, "chat_denied"), (True, False, "no_agent_wired")],
)
def test_an_unwired_chat_has_a_reason(small_house: House, mention: bool, denied: bool, reason: str) -> None:
    """A message that nobody listens to ends with the reason why."""
    small_house.chat()
    if denied:
        with small_house.db.write() as session:
            session.execute(update(Chat).values(denied_at=1))
    event_id = small_house.say(is_mention=mention)
    small_house.route()
    assert (small_house.event(event_id).state, small_house.drop(event_id)) == ("dropped", reason)


def test_a_stranger_in_a_strict_chat_can_be_let_in_later(small_house: House) -> None:
    """A message that waits for an approval is dropped with that reason, and kept for it."""
    small_house.host()
    small_house.chat(policy="request_approval")
    small_house.agent()
    small_house.wire()
    event_id = small_house.say("let me in")
    small_house.route()
    assert small_house.drop(event_id) == "unknown_sender_request_approval"
    assert json.loads(small_house.event(event_id).content)["text"] == "let me in"


def test_a_replayed_event_keeps_its_routes(small_house: House) -> None:
    """An operator may route an event again: agents that have it already do not get it twice."""
    small_house.furnish()
    event_id = small_house.say()
    small_house.append(small_house.route())
    small_house.agent("bea")
    small_house.wire("bea")
    with small_house.db.write() as session:
        session.execute(update(InboundEvent).values(state="pending"))
    small_house.append(small_house.route())
    assert [(route.event_id, route.agent_group_id) for route in small_house.routes()] == [
        (event_id, "ag-andy"),
        (event_id, "ag-bea"),
    ]


def test_sticky_only_where_it_was_addressed(small_house: House) -> None:
    """A thread sticks after a mention in it, not after chatter that was merely overheard, and not after a reset."""
    small_house.threads = True
    small_house.furnish(engage_mode="mention-sticky", engage_pattern=None, ignored_message_policy="accumulate")
    for thread, mention in (("t1", False), ("t1", False), ("t2", True), ("t2", False), ("t1", False)):
        small_house.say(thread=thread, is_mention=mention)
    result = small_house.route()
    assert [route.trigger for route in small_house.routes()] == [0, 0, 1, 1, 0]
    assert {address.thread_id for address in result.subscriptions} == {"t2"}
    with small_house.db.write() as session:
        session.execute(update(AgentSession).values(status="closed"))
    small_house.say(thread="t2")
    small_house.route()
    assert small_house.routes()[-1].trigger == 0


def test_a_refused_command_answers_and_the_others_go_on(small_house: House) -> None:
    """The sender is told why, once per refusing agent, and nothing of it reaches an agent."""
    small_house.furnish("andy", "bea")
    event_id = small_house.say("/clear please")
    result = small_house.route()
    told = deliveries(small_house)
    assert [json.loads(one.content)["text"] for one in told] == ["Permission denied: /clear requires admin access."] * 2
    assert set(result.answered) == {one.session_id for one in told} and result.touched == {}
    assert small_house.drop(event_id) == "command_refused"


def test_groups_are_placed_on_the_emptiest_host(house: House) -> None:
    """Where an agent lives is decided once, by the groups that each host has for its capacity."""
    house.host("big", capacity=20)
    house.host("small", capacity=10)
    house.host("away", capacity=100, state="down")
    house.chat()
    for name in "abc":
        house.agent(name)
        house.wire(name)
    house.say()
    house.route()
    with house.db.read() as session:
        placed = dict(session.execute(select(AgentGroup.id, AgentGroup.host_id)).all())
    assert placed == {"ag-a": "big", "ag-b": "small", "ag-c": "big"}


def test_without_a_host_messages_wait(house: House) -> None:
    """Messages are routed although no host is up; once one is, their groups are placed."""
    house.chat()
    house.agent()
    house.wire()
    house.say()
    result = house.route()
    assert [touched.host_id for touched in result.touched.values()] == [None]
    house.host()
    with house.db.write_core() as connection:
        assert place_waiting(connection, 10) == {"ag-andy": "here"}


def test_a_refusal_without_a_host_is_not_forgotten(house: House) -> None:
    """What was said in the name of a group without a host belongs to the host that it gets, and can be retried."""
    house.chat()
    house.agent()
    house.wire()
    house.say("/clear")
    assert house.route().answered
    house.host()
    with house.db.write_core() as connection:
        assert place_waiting(connection, 10) == {"ag-andy": "here"}
    with house.db.read() as session:
        assert session.scalars(select(Delivery.host_id)).all() == ["here"]


def test_the_lock_is_the_chats_own(house: House) -> None:
    """On PostgreSQL a chat that is being routed does not hold up another one."""
    if house.db.dialect == "sqlite":
        pytest.skip("SQLite has one lock for everything")
    house.furnish()
    house.chat("work")
    house.wire("andy", "work")
    house.say()
    house.say(chat="work")
    with house.db.write() as session:
        session.execute(text("SELECT 1 FROM chat_counters WHERE platform_id = 'family' FOR UPDATE"))
        assert house.route("work").events == 1
