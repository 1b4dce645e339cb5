"""Accepting messages: once each, in order, with their media, alone when refused, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text

from nanotasks.central import Database
from nanotasks.central.events import InboundEvent, MediaBlob
from nanotasks.channels.contract import Accepted, Address, InboundMessage
from nanotasks.errors import DependencyDownError, InvalidError, TooManyError
from nanotasks.intake import accept
from nanotasks.intake.accept import Acceptor, accept_all
from nanotasks.intake.prepared import digest, prepare, read_address
from nanotasks.testing import wait_for

ROOM = 1000


def message(message_id: str = "m1", content: Mapping[str, Any] | None = None, **fields: Any) -> InboundMessage:
    chat = fields.pop("chat", "family")
    fields.setdefault("timestamp", "2026-03-01T12:00:00.000Z")
    return InboundMessage(
        Address("file", chat, fields.pop("thread", None)),
        message_id,
        {"text": "hello", "sender": "Ann", "senderId": "1"} if content is None else content,
        **fields,
    )


@pytest.fixture
def rung() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def acceptor(central: Database, rung: list[tuple[str, str]]) -> Iterator[Acceptor]:
    door = Acceptor(central, max_pending=ROOM, ring=lambda *chat: rung.append(chat))
    yield door
    door.close()


def events(db: Database) -> list[InboundEvent]:
    with db.read() as session:
        return list(session.scalars(select(InboundEvent).order_by(InboundEvent.accept_order)))


def test_an_accepted_message_is_a_pending_event(acceptor: Acceptor, central: Database) -> None:
    """Everything the receiver said about the message stands in the row."""
    reply_to = Address("terminal", "local", None)
    accepted = acceptor.accept(message(thread="t1", is_mention=True, is_group=False, reply_to=reply_to))
    (event,) = events(central)
    assert (event.id, accepted.duplicate) == (accepted.event_id, False)
    assert (event.channel_type, event.platform_id, event.thread_id) == ("file", "family", "t1")
    assert (event.platform_message_id, event.kind, event.timestamp) == ("m1", "chat", "2026-03-01T12:00:00.000Z")
    assert event.content == '{"text":"hello","sender":"Ann","senderId":"1"}'
    assert (event.is_mention, event.is_group, event.state) == (1, 0, "pending")
    assert event.reply_to is not None and read_address(event.reply_to) == reply_to


def test_the_same_message_is_accepted_once(acceptor: Acceptor, central: Database, rung: list[tuple[str, str]]) -> None:
    """What the platform sends again gets the first event's id, and nobody is woken for it."""
    first = acceptor.accept(message())
    second = acceptor.accept(message(timestamp="2026-03-01T12:00:09.000Z", is_mention=True))
    assert second == Accepted(first.event_id, duplicate=True)
    assert len(events(central)) == 1
    assert rung == [("file", "family")]


def test_duplicates_within_one_batch(central: Database) -> None:
    """Two copies that arrive together are one event too."""
    copies = [prepare(message()), prepare(message("m2")), prepare(message())]
    outcomes = accept_all(central, copies, max_pending=ROOM)
    assert [isinstance(one, Accepted) and one.duplicate for one in outcomes] == [False, False, True]
    assert [event.platform_message_id for event in events(central)] == ["m1", "m2"]


@pytest.mark.parametrize(
    "content",
    [
        {"text": "hello, corrected", "senderId": "1"},
        {"text": "hello", "senderId": "2"},
        {"text": "hello", "senderId": "1", "attachments": [{"id": "f1"}]},
    ],
)
def test_an_edited_message_is_another_event(acceptor: Acceptor, central: Database, content: dict[str, Any]) -> None:
    """Another sender, text or attachment under the same platform id is not the same message."""
    acceptor.accept(message(content={"text": "hello", "senderId": "1"}))
    assert not acceptor.accept(message(content=content)).duplicate
    assert len(events(central)) == 2


def test_the_same_id_in_another_chat_is_another_message(acceptor: Acceptor, central: Database) -> None:
    """Platform ids need to be unique in their chat only."""
    acceptor.accept(message())
    assert not acceptor.accept(message(chat="work")).duplicate


def test_a_message_without_an_id_is_always_new(acceptor: Acceptor, central: Database) -> None:
    """Without an id from the platform there is nothing to know it by."""
    assert acceptor.accept(message("")).event_id != acceptor.accept(message("")).event_id


def test_media_leave_the_content(acceptor: Acceptor, central: Database) -> None:
    """The bytes of attachments are kept as bytes; the content keeps their place in the list."""
    attachments = [{"type": "photo", "data": "eA=="}, None, {"url": "https://x"}, {"name": "b.txt", "data": "Yg=="}]
    accepted = acceptor.accept(message(content={"text": "two", "attachments": attachments}))
    (event,) = events(central)
    with central.read() as session:
        blobs = session.scalars(select(MediaBlob).order_by(MediaBlob.position)).all()
        assert [(blob.event_id, blob.position, blob.name, blob.data) for blob in blobs] == [
            (accepted.event_id, 0, None, b"x"),
            (accepted.event_id, 3, "b.txt", b"b"),
        ]
    assert json.loads(event.content)["attachments"] == [
        {"type": "photo", "blobId": blobs[0].id},
        None,
        {"url": "https://x"},
        {"name": "b.txt", "blobId": blobs[1].id},
    ]


def test_too_many_pending_messages_are_refused(central: Database) -> None:
    """A chat over its limit is asked to wait; other chats are not."""
    full = [prepare(message(f"m{number}")) for number in range(4)]
    outcomes = accept_all(central, [*full, prepare(message("other", chat="work"))], max_pending=3)
    assert [type(one) for one in outcomes] == [Accepted, Accepted, Accepted, TooManyError, Accepted]
    assert isinstance(accept_all(central, [prepare(message("m9"))], max_pending=3)[0], TooManyError)


def test_a_message_that_the_database_refuses_fails_alone(central: Database) -> None:
    """One bad row does not take its batch along."""
    bad = prepare(message("bad"))
    bad.row["is_mention"] = 7
    outcomes = accept_all(central, [prepare(message("m1")), bad, prepare(message("m2"))], max_pending=ROOM)
    assert [type(one) for one in outcomes] == [Accepted, InvalidError, Accepted]
    assert [event.platform_message_id for event in events(central)] == ["m1", "m2"]


@pytest.mark.parametrize(
    "unusable",
    [
        message("m\0"),
        message(chat=""),
        message(thread="\ud800"),
        message(content={"text": float("nan")}),
        message(content={"text": object()}),
        message("m" * 513),
        message(chat="\u4e00" * 171),
        message(content={"text": "hello", "senderId": "a" * 513}),
    ],
)
def test_unusable_messages_are_refused_at_once(unusable: InboundMessage) -> None:
    """What no database can hold, or no JSON can say, never reaches the queue."""
    with pytest.raises(InvalidError):
        prepare(unusable)


def test_half_a_surrogate_pair_survives(acceptor: Acceptor, central: Database) -> None:
    """A text that UTF-8 cannot hold is kept as a JSON escape."""
    acceptor.accept(message(content={"text": "\ud83d"}))
    assert json.loads(events(central)[0].content) == {"text": "\ud83d"}


def test_many_producers_share_commits_and_keep_their_order(
    acceptor: Acceptor, central: Database, rung: list[tuple[str, str]]
) -> None:
    """Every message of every thread gets its own place, and each producer's messages stay in its order."""

    def produce(producer: int) -> None:
        for number in range(25):
            acceptor.accept(message(f"{producer}-{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(produce, range(8)))
    stored = events(central)
    assert sorted(event.accept_order for event in stored) == list(range(1, 201))
    for producer in range(8):
        mine = [event.platform_message_id for event in stored if event.platform_message_id.startswith(f"{producer}-")]
        assert mine == [f"{producer}-{number}" for number in range(25)]
    assert 0 < len(rung) <= 200


def test_two_gateways_share_one_order(central: Database) -> None:
    """Two acceptors on one database never give two messages of a chat the same place."""
    doors = [Acceptor(central, max_pending=ROOM, ring=lambda *_: None) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: doors[number % 2].accept(message(f"m{number}")), range(100)))
    for door in doors:
        door.close()
    assert sorted(event.accept_order for event in events(central)) == list(range(1, 101))


def test_close_stores_what_is_queued(central: Database) -> None:
    """A gateway that stops answers everybody who still waits, and refuses whoever comes later."""
    door = Acceptor(central, max_pending=ROOM, ring=lambda *_: None)
    futures = [door.submit(message(f"m{number}")) for number in range(50)]
    door.close()
    assert len({future.result(0).event_id for future in futures}) == 50
    with pytest.raises(DependencyDownError):
        door.submit(message())


def test_a_producer_that_gives_up_harms_nobody(central: Database) -> None:
    """A cancelled request neither stores its message nor stops the writer."""
    hold = threading.Event()
    door = Acceptor(central, max_pending=ROOM, ring=lambda *_: hold.wait(10) and None)
    busy = door.submit(message("m1"))
    wait_for(busy.running, what="the writer has the first message")
    given_up = door.submit(message("m2"))
    assert given_up.cancel()
    hold.set()
    assert not door.accept(message("m3")).duplicate
    door.close()
    assert [event.platform_message_id for event in events(central)] == ["m1", "m3"]


def test_a_database_that_is_away_is_said(sqlite_central: Database) -> None:
    """When nothing could be committed every producer hears that it is to send again."""
    with sqlite_central.write() as session:
        session.execute(text("DROP TABLE chat_counters"))
    door = Acceptor(sqlite_central, max_pending=ROOM, ring=lambda *_: None)
    with pytest.raises(Exception, match="no schema"):
        door.accept(message())
    door.close()


def test_an_error_without_a_text_fails_its_batch_and_no_other(
    sqlite_central: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its producer hears what kind of error it was, and the writer goes on."""

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    door = Acceptor(sqlite_central, max_pending=ROOM, ring=lambda *_: None)
    with monkeypatch.context() as patched, pytest.raises(DependencyDownError, match="MemoryError"):
        patched.setattr(accept, "accept_all", fail)
        door.submit(message("m1")).result(5)
    assert not door.submit(message("m2")).result(5).duplicate
    door.close()
    assert [event.platform_message_id for event in events(sqlite_central)] == ["m2"]


@given(st.dictionaries(st.sampled_from(["text", "senderId", "sender", "attachments", "x"]), st.text() | st.integers()))
def test_the_digest_is_stable(content: dict[str, Any]) -> None:
    """The same content has the same digest, whatever the order of its fields, and any content has one."""
    assert digest(content) == digest(dict(reversed(content.items())))
    assert digest(content) == digest(json.loads(json.dumps(content)))
