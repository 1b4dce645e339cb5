"""The written form of a message: what each field becomes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nanotasks.channels.contract import Address, InboundMessage
from nanotasks.channels.form import read
from nanotasks.clock import parse_ms
from nanotasks.errors import InvalidError

LEAST = {"id": "m-1", "platform_id": "family", "text": "hello"}


def message(**fields: Any) -> InboundMessage:
    return read(json.dumps({**LEAST, **fields}), channel_type="file", any_address=True)


def test_the_least_message() -> None:
    """An id, a chat and a text; the time is that of arrival, and nobody is known to be addressed."""
    made = message()
    assert made.address == Address("file", "family", None)
    assert (made.message_id, made.kind, made.content) == ("m-1", "chat", {"text": "hello"})
    assert (made.is_mention, made.is_group, made.reply_to) == (False, None, None)
    assert parse_ms(made.timestamp) is not None


def test_who_said_it() -> None:
    """Sender fields take the names that agents and routing know."""
    assert message(sender="Ann", sender_id="ann", sender_name="Ann B.").content == {
        "text": "hello",
        "sender": "Ann",
        "senderId": "ann",
        "senderName": "Ann B.",
    }


@pytest.mark.parametrize(
    ("given", "mention"),
    [
        ({}, False),
        ({"is_group": True}, False),
        ({"is_group": False}, True),  # a direct message addresses the agent
        ({"is_group": None}, False),
        ({"is_group": False, "is_mention": False}, False),
        ({"is_group": True, "is_mention": True}, True),
    ],
)
def test_when_the_agent_is_addressed(given: dict[str, Any], mention: bool) -> None:
    """As the message says, else in a direct message."""
    assert message(**given).is_mention is mention


def test_names_in_camel_case_are_read_too() -> None:
    """NanoClaw 2 writes them."""
    made = read('{"id":"1","platformId":"p","threadId":"t","text":"x","isMention":true}', channel_type="file")
    assert (made.address, made.is_mention) == (Address("file", "p", "t"), True)


def test_an_event_of_the_original() -> None:
    """Nested message, content as JSON text in its own order, another channel, another place for answers."""
    event = {
        "channelType": "tg",
        "platformId": "tg:100",
        "threadId": None,
        "message": {
            "id": "m1",
            "kind": "chat-sdk",
            "timestamp": "2026-02-28T08:01:01.000Z",
            "content": '{"text":"Andy!","sender":"Ann","extra":{"z":1,"a":2}}',
            "isGroup": True,
            "isMention": True,
        },
        "replyTo": {"channelType": "sl", "platformId": "C1", "threadId": "t1"},
    }
    made = read(json.dumps(event), channel_type="file", any_address=True)
    assert made == InboundMessage(
        address=Address("tg", "tg:100", None),
        message_id="m1",
        content={"text": "Andy!", "sender": "Ann", "extra": {"z": 1, "a": 2}},
        timestamp="2026-02-28T08:01:01.000Z",
        kind="chat-sdk",
        is_mention=True,
        is_group=True,
        reply_to=Address("sl", "C1", "t1"),
    )
    assert json.dumps(made.content["extra"]) == '{"z": 1, "a": 2}'


@pytest.mark.parametrize("content", ["just words", "5", "null", "[1]", '{"broken'])
def test_content_that_is_no_object_is_the_text(content: str) -> None:
    """As the original reads it."""
    made = read(json.dumps({"id": "1", "platform_id": "p", "content": content}), channel_type="file")
    assert made.content == {"text": content}


def test_fields_beside_the_content_fill_what_it_lacks() -> None:
    """The content itself wins."""
    made = message(content={"text": "inner", "x": 1}, sender="Ann")
    assert made.content == {"text": "inner", "x": 1, "sender": "Ann"}


def test_attachments_alone_are_a_message() -> None:
    """A picture needs no words."""
    attachments = [{"name": "a.png", "mimeType": "image/png", "data": "AAAA"}]
    made = read(json.dumps({"id": "1", "platform_id": "p", "attachments": attachments}), channel_type="file")
    assert made.content == {"attachments": attachments}


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2026-02-28T08:01:01Z", "2026-02-28T08:01:01.000Z"),
        ("2026-02-28T09:01:01.5+01:00", "2026-02-28T08:01:01.500Z"),
        ("2026-02-28 08:01:01", "2026-02-28T08:01:01.000Z"),  # without a zone it is UTC
    ],
)
def test_times_are_stored_in_one_form(text: str, stored: str) -> None:
    """ISO-8601, UTC, milliseconds."""
    assert message(timestamp=text).timestamp == stored


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"id": ""}, "id"),
        ({"id": 5}, "id"),
        ({"id": "x" * 513}, "id"),
        ({"id": "a\nb"}, "control"),
        ({"platform_id": None}, "platform_id"),
        ({"platform_id": "a\0b"}, "control"),
        ({"text": 5}, "text"),
        ({"text": None}, "empty"),
        ({"is_mention": "yes"}, "is_mention"),
        ({"is_group": 1}, "is_group"),
        ({"kind": "task"}, "kind"),
        ({"kind": "system"}, "kind"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+14:00"}, "timestamp"),
        ({"attachments": ["x"]}, "attachments"),
        ({"attachments": [{"name": "a"}, {"name": "b", "data": "!!!"}]}, "attachment 2 is not base64"),
        ({"reply_to": {"channel_type": "x"}}, "platform_id"),
    ],
    ids=str,
)
def test_what_is_refused_is_named(fields: dict[str, Any], names: str) -> None:
    """A wrong type, an empty or endless id, a kind that only the host may write."""
    with pytest.raises(InvalidError, match=names):
        message(**fields)


@pytest.mark.parametrize(
    "fields", [{"channel_type": "terminal"}, {"reply_to": {"channel_type": "file", "platform_id": "x"}}], ids=str
)
def test_only_operators_may_name_other_places(fields: dict[str, Any]) -> None:
    """A webhook speaks for its own channel."""
    with pytest.raises(InvalidError, match="another channel"):
        read(json.dumps({**LEAST, **fields}), channel_type="webhook")
