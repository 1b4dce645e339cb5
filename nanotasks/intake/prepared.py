"""A platform message made ready for the intake log: its identity, its content as text, its media apart.

Two messages are the same when channel, chat, platform message id and digest are: the digest covers the sender,
the text and the attachments, so that a message the platform sends again is known, and an edited one is new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nanotasks.channels.contract import Address, InboundMessage
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.content import Content
from nanotasks.errors import InvalidError
from nanotasks.ids import new_id
from nanotasks.intake.media import Media, detach

# Several names stand in one index, and PostgreSQL refuses an index row of more than 2,704 bytes.
MAX_NAME_BYTES = 512


@dataclass(frozen=True)
class Prepared:
    """A row of `inbound_events` but for its id and place in the order, and the media that go with it."""

    chat: tuple[str, str]
    row: dict[str, Any]
    media: list[Media]


def prepare(message: InboundMessage) -> Prepared:
    """Normalise a message. Raises `InvalidError` for one that no database could hold."""
    address, message_id = message.address, message.message_id or new_id("msg")
    for name, value in (
        ("channel_type", address.channel_type),
        ("platform_id", address.platform_id),
        ("thread_id", address.thread_id or ""),
        ("message_id", message_id),
        ("kind", message.kind),
        ("timestamp", message.timestamp),
        ("sender", Content(message.content).sender.handle or ""),
    ):
        _require_storable(name, value)
    if not address.channel_type or not address.platform_id:
        raise InvalidError("The message names no chat.", fix="Give channel_type and platform_id.")
    content, media = detach(message.content)
    row = {
        "channel_type": address.channel_type,
        "platform_id": address.platform_id,
        "thread_id": address.thread_id or None,
        "platform_message_id": message_id,
        "digest": digest(message.content),
        "kind": message.kind,
        "timestamp": message.timestamp,
        "content": _as_json(content),
        "is_mention": int(message.is_mention),
        "is_group": None if message.is_group is None else int(message.is_group),
        "reply_to": None if message.reply_to is None else address_text(message.reply_to),
        "received_at": now_ms(),
    }
    return Prepared((address.channel_type, address.platform_id), row, media)


def digest(content: Mapping[str, Any]) -> str:
    """32 hex digits over the sender, the text and the attachments' identities."""
    said = Content(content)
    attachments = said.fields.get("attachments")
    identities = [_attachment_identity(one) for one in attachments] if isinstance(attachments, list) else []
    text = json.dumps([said.sender.handle, said.text, identities])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def address_text(address: Address) -> str:
    """The stored form of an address that answers go to."""
    return dumps([address.channel_type, address.platform_id, address.thread_id])


def read_address(text: str) -> Address:
    """The address that `address_text` wrote."""
    return Address(*json.loads(text))


def _attachment_identity(attachment: object) -> str | None:
    if not isinstance(attachment, dict):
        return None
    # A platform's URL may be signed anew each time, so it counts only when there is nothing better.
    for name in ("id", "data", "url", "name"):
        value = attachment.get(name)
        if isinstance(value, str) and value:
            return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest() if name == "data" else value
    return None


def _as_json(content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError("The message's content is no JSON.", why=str(error)) from error
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair has no place in a database, but its escape has.
        return json.dumps(content, separators=(",", ":"))
    return text


def _require_storable(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidError(f"The message's {name} is no text.")
    if len(value.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise InvalidError(f"The message's {name} is longer than {MAX_NAME_BYTES} bytes.")
    if "\0" in value or (not value.isprintable() and any("\ud800" <= char <= "\udfff" for char in value)):
        raise InvalidError(f"The message's {name} holds a character that cannot be stored.")
