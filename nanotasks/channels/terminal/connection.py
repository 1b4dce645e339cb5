"""One terminal client: what it says goes to intake, one frame at a time, in the order it was said."""

from __future__ import annotations

import asyncio
from typing import Any

from nanotasks import logs
from nanotasks.channels.contract import InboundMessage
from nanotasks.channels.form import from_fields
from nanotasks.channels.refusal import refusal
from nanotasks.channels.terminal.office import Office
from nanotasks.channels.terminal.protocol import CHANNEL, DEFAULT_CHAT, DEFAULT_USER, decode
from nanotasks.channels.terminal.tray import Tray
from nanotasks.channels.terminal.wire import Wire
from nanotasks.errors import InvalidError, NanotasksError
from nanotasks.ids import new_id

_log = logs.get("terminal")
_NAME_CHARACTERS = 200


class Connection:
    """A client's connection, from its first frame to its end."""

    def __init__(self, office: Office, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._office = office
        self._reader = reader
        self._wire = Wire(writer)
        self._tray: Tray | None = None
        self._user = DEFAULT_USER
        self._name = DEFAULT_USER
        self._group = False
        self.chat = DEFAULT_CHAT

    async def run(self) -> None:
        """Serve the client until it leaves or is cut off."""
        try:
            while line := await self._next_line():
                await self._answer(line)
        except OSError:
            pass  # The client is gone; what it has not confirmed is shown to the next one.
        finally:
            if self._tray is not None:
                self._office.postman.leave(self.chat, self._tray)
            self._office.outcomes.forget(self._wire)
            await self._wire.close()

    async def close(self) -> None:
        """End the conversation from our side."""
        await self._wire.close()

    def show_typing(self) -> None:
        """An agent is at work in this chat."""
        if self._tray is not None:
            self._wire.hint("typing", chat=self.chat)

    async def _next_line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            error = InvalidError("The line is too long.", fix="NANOTASKS_MAX_BODY_KB sets the limit.")
            self._wire.send("error", **error.as_json())
            return b""

    async def _answer(self, line: bytes) -> None:
        if not line.strip():
            return
        message_id: Any = None
        try:
            frame_type, fields = decode(line)
            message_id = fields.get("id")
            if frame_type == "hello":
                await self._greet(fields)
                return
            tray = self._tray or await self._greet({})
            if frame_type == "ack":
                self._office.postman.confirm(tray, _numbers(fields.get("items")))
            else:
                await self._take(fields)
        except Exception as error:
            self._refuse(error, message_id)
            if self._tray is None:
                # What follows a refused hello was meant for another chat than the default one.
                raise ConnectionAbortedError("The client did not say who it is.") from error

    async def _greet(self, fields: dict[str, Any]) -> Tray:
        if self._tray is not None:
            raise InvalidError("You have said hello already.", fix="Open another connection for another chat.")
        self.chat = _name(fields, "chat", DEFAULT_CHAT)
        self._user = _name(fields, "user", DEFAULT_USER)
        self._name = _name(fields, "name", self._user)
        self._group = self.chat != DEFAULT_CHAT and (
            fields.get("group") is True or await self._office.is_group_chat(self.chat)
        )

        def welcome(waiting: int) -> None:
            self._wire.send("welcome", chat=self.chat, group=self._group, waiting=waiting)

        tray = Tray(self._wire)
        await self._office.postman.join(self.chat, tray, welcome)
        self._tray = tray
        return tray

    async def _take(self, fields: dict[str, Any]) -> None:
        message = await self._message(fields)
        accepted = await self._office.accept(message)
        self._wire.send("accepted", id=message.message_id, event_id=accepted.event_id, duplicate=accepted.duplicate)
        self._office.outcomes.expect(accepted.event_id, message.message_id, self.chat, self._wire)

    async def _message(self, fields: dict[str, Any]) -> InboundMessage:
        text = fields.get("text")
        if not isinstance(text, str) or not text.strip():
            raise InvalidError("The message is empty.", fix="Give a text.")
        to = fields.get("to")
        address = to if isinstance(to, dict) else {"channel_type": CHANNEL, "platform_id": self.chat}
        group = None if isinstance(to, dict) else self._group
        sender = fields.get("sender") or self._name
        given = {
            **address,
            "id": fields.get("id") or new_id("term"),
            "text": text,
            "sender": sender,
            "sender_id": fields.get("sender_id") or f"{CHANNEL}:{self._user}",
            "sender_name": sender,
            "is_group": group,
            "is_mention": await self._is_mention(fields.get("mention"), text, group),
            "reply_to": fields.get("reply_to"),
        }
        return from_fields(given, channel_type=CHANNEL, any_address=True)

    async def _is_mention(self, said: Any, text: str, group: bool | None) -> bool:
        if isinstance(said, bool) or not group:
            return said is not False
        return await self._office.names_agent(text)

    def _refuse(self, error: Exception, message_id: Any) -> None:
        if not isinstance(error, NanotasksError):
            _log.error("frame_failed", chat=self.chat, exc_info=error)
        answer = refusal(error)
        fields = dict(answer.body)
        if isinstance(message_id, str):
            fields["id"] = message_id
        if answer.retry_after_s is not None:
            fields["retry_after_s"] = answer.retry_after_s
        self._wire.send("error", **fields)


def _name(fields: dict[str, Any], field: str, default: str) -> str:
    value = fields.get(field)
    if value is None:
        return default
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value.strip()) <= _NAME_CHARACTERS:
        raise InvalidError(f"{field}: not a name.", fix=f"Use 1 to {_NAME_CHARACTERS} printable characters.")
    return value


def _numbers(items: Any) -> list[int]:
    return [item for item in items if isinstance(item, int)] if isinstance(items, list) else []
