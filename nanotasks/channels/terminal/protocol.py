"""The frames between the gateway and its terminal clients: one JSON object per line, in both directions.

Client to gateway:

    hello    {chat?, user?, name?, group?}      who is here; without it: chat and user `local`. Answered by `welcome`
    message  {text, id?, mention?, to?, reply_to?, sender?, sender_id?}
                                                say something; the same id with the same text is taken once.
                                                `to` and `reply_to` ({channel_type, platform_id, thread_id?}) speak
                                                in another chat, or have answers go there: whoever may open the
                                                socket is the operator
    ack      {items: [number, …]}               these messages were shown; they will not come again

Gateway to client:

    welcome  {chat, group, waiting}             `waiting` messages follow that nobody has seen yet
    accepted {id, event_id, duplicate}          the message is safe
    message  {item, delivery_id, chat, at, from, kind, text, files}
                                                to be acknowledged. `from` is the agent's name or null; `text` is
                                                the content as plain text; `files` have name, size, path and host.
                                                Comes at least once: a client tells repetitions by `item`
    typing   {chat}                             an agent is at work
    settled  {id, state, reason}                nothing more is to come of message `id` by itself: answered,
                                                completed (no reply), context (kept for later), dropped or dead
    error    {id?, code, what, why, fix, retry_after_s?}
                                                with `retry_after_s` the same frame may be sent again

A frame without `type` is a `message` when it has `text`, so that `{"text": "hello"}` is a whole conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nanotasks.channels import json_text
from nanotasks.errors import InvalidError

CHANNEL = "terminal"
SOCKET = "terminal.sock"
DEFAULT_CHAT = "local"
DEFAULT_USER = "local"

MAILBOX_TOPIC = "mailbox"
TYPING_TOPIC = "typing"

CLIENT_FRAMES = ("hello", "message", "ack")


def encode(frame_type: str, fields: Mapping[str, Any]) -> bytes:
    """One frame as a line."""
    return json.dumps({"type": frame_type, **fields}, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """The type and the fields of a client's line. Raises `InvalidError`."""
    fields = json_text.parse_object(line)
    frame_type = fields.pop("type", "message" if "text" in fields else None)
    if frame_type not in CLIENT_FRAMES:
        raise InvalidError(f"There is no frame {frame_type!r:.40}.", fix=f"Send {', '.join(CLIENT_FRAMES)}.")
    return frame_type, fields
