"""The written form of an inbound message: what webhooks post and what `nanotasks intake replay` reads.

    {"id": "m-1", "platform_id": "family", "text": "hello", "sender": "Ann", "sender_id": "ann"}

NanoClaw 2's own event is read as well: camelCase names, the message nested under `message`, and `content` as
JSON text. Unknown fields are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, StrictBool, ValidationError
from pydantic.alias_generators import to_camel

from nanotasks.channels import json_text
from nanotasks.channels.contract import Address, InboundMessage
from nanotasks.clock import iso, now_iso, parse_ms
from nanotasks.errors import InvalidError


def _plain(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError("control characters are not allowed")
    return text


Identifier = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_plain)]


def _field(name: str, description: str, default: Any = None) -> Any:
    return Field(default, validation_alias=AliasChoices(name, to_camel(name)), description=description)


# Either alphabet, with line breaks or without.
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]*={0,2}\s*")


class AddressForm(BaseModel):
    """Where answers go instead of the chat the message came from."""

    model_config = ConfigDict(strict=True)

    channel_type: Identifier = _field("channel_type", "The channel.", ...)
    platform_id: Identifier = _field("platform_id", "The chat on that channel.", ...)
    thread_id: Identifier | None = _field("thread_id", "The thread in that chat.")


class MessageForm(BaseModel):
    """One inbound message. `text`, `content` or `attachments` must be there."""

    model_config = ConfigDict(strict=True)

    id: Identifier = Field(description="The platform's id: the same message under the same id is taken once.")
    platform_id: Identifier = _field("platform_id", "The chat.", ...)
    channel_type: Identifier | None = _field("channel_type", "The channel; only in replayed files.")
    thread_id: Identifier | None = _field("thread_id", "The thread in the chat.")
    text: str | None = Field(None, description="What was said.")
    content: dict[str, Any] | str | None = Field(
        None, description="The whole content instead of `text`: an object, or its JSON text."
    )
    attachments: list[dict[str, Any]] | None = Field(
        None, description="Files: objects with `name`, `mimeType` and base64 `data`."
    )
    sender: str | None = Field(None, description="The name that the agent reads.")
    sender_id: Identifier | None = _field("sender_id", "The platform's id of the sender; without it nobody is known.")
    sender_name: str | None = _field("sender_name", "The name under which the sender is remembered.")
    is_mention: StrictBool | None = _field(
        "is_mention", "Whether the agent was addressed; by default only in a direct message."
    )
    is_group: StrictBool | None = _field("is_group", "False for a direct message; null when it is not known.")
    timestamp: str | None = Field(None, description="ISO-8601; by default the time of arrival.")
    kind: Literal["chat", "chat-sdk", "webhook"] = Field("chat", description="How the agent is shown the message.")
    reply_to: AddressForm | None = _field("reply_to", "Where answers go; only in replayed files.")


def read(
    raw: bytes | str,
    *,
    channel_type: str,
    defaults: Mapping[str, Any] | None = None,
    any_address: bool = False,
) -> InboundMessage:
    """The message that a JSON text describes; `defaults` fill fields that are missing. Raises as `from_fields`."""
    fields = {**(defaults or {}), **_flat(json_text.parse_object(raw))}
    return from_fields(fields, channel_type=channel_type, any_address=any_address)


def from_fields(fields: Mapping[str, Any], *, channel_type: str, any_address: bool = False) -> InboundMessage:
    """The message of a channel that these fields describe.

    Only with `any_address`, for operators, may they name another channel or where answers go. Raises
    `InvalidError` that names the field.
    """
    try:
        form = MessageForm.model_validate(fields)
    except ValidationError as error:
        raise _explained(error) from None
    if not any_address and (form.reply_to is not None or form.channel_type not in {None, channel_type}):
        raise InvalidError("This message may not name another channel.", fix="Leave out channel_type and reply_to.")
    return _message(form, form.channel_type or channel_type)


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    nested = fields.get("message")
    if not isinstance(nested, dict):
        return fields
    return {**{name: value for name, value in fields.items() if name != "message"}, **nested}


def _message(form: MessageForm, channel_type: str) -> InboundMessage:
    reply_to = form.reply_to
    return InboundMessage(
        address=Address(channel_type, form.platform_id, form.thread_id),
        message_id=form.id,
        content=_content(form),
        timestamp=_timestamp(form.timestamp),
        kind=form.kind,
        is_mention=form.is_group is False if form.is_mention is None else form.is_mention,
        is_group=form.is_group,
        reply_to=Address(reply_to.channel_type, reply_to.platform_id, reply_to.thread_id) if reply_to else None,
    )


def _content(form: MessageForm) -> dict[str, Any]:
    content = _read_content(form.content)
    given = {
        "text": form.text,
        "sender": form.sender,
        "senderId": form.sender_id,
        "senderName": form.sender_name,
        "attachments": form.attachments,
    }
    for name, value in given.items():
        if value is not None:
            content.setdefault(name, value)
    _check_attachments(content.get("attachments"))
    if form.content is None and not content.keys() & {"text", "attachments"}:
        raise InvalidError("The message is empty.", fix="Give text, content or attachments.")
    return content


def _check_attachments(attachments: Any) -> None:
    """Bytes that are no base64 would arrive as an empty or a broken file."""
    for number, one in enumerate(attachments if isinstance(attachments, list) else [], start=1):
        data = one.get("data") if isinstance(one, dict) else None
        if isinstance(data, str) and not _BASE64.fullmatch(data):
            raise InvalidError(
                f"The data of attachment {number} is not base64.", fix="Encode the file's bytes as base64 (RFC 4648)."
            )


def _read_content(content: dict[str, Any] | str | None) -> dict[str, Any]:
    if content is None:
        return {}
    if isinstance(content, dict):
        return dict(content)
    try:
        return json_text.parse_object(content)
    except InvalidError:
        return {"text": content}


def _timestamp(text: str | None) -> str:
    if text is None:
        return now_iso()
    try:
        ms = parse_ms(text)
        moment = iso(ms) if ms is not None else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise InvalidError("timestamp: not a time.", why=f"{text[:40]!r} is not ISO-8601.", fix="Leave it out.")
    return moment


def _explained(error: ValidationError) -> InvalidError:
    problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_input=False)[:5]]
    return InvalidError(
        "The message is not in the documented form.",
        why="; ".join(problems) + ".",
        fix="See MessageForm in the gateway's /openapi.json.",
    )
