"""What a message's content says: its text and its sender (NanoClaw 2's reading).

Content is JSON, mostly an object; what is no JSON is text as a whole, and other JSON has neither text nor
sender. Senders name themselves in `senderId`, `sender` or `author.userId`, whichever comes first as a text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Sender:
    """Who sent a message: `handle` as the platform says it, the name to show, and `label`, what the drop log keeps."""

    handle: str | None
    display_name: str | None
    label: str | None

    def user_id(self, channel_type: str) -> str | None:
        """`<channel>:<handle>`; a handle with a colon names its channel already."""
        if not self.handle:
            return None
        return self.handle if ":" in self.handle else f"{channel_type}:{self.handle}"


class Content:
    """One message's content: a JSON value, or a text that is none."""

    def __init__(self, value: Any, raw: str | None = None) -> None:
        self.value = value
        self._raw = raw

    @classmethod
    def parse(cls, raw: str) -> Content:
        """The content that is stored as `raw`. Never raises."""
        try:
            return cls(json.loads(raw))
        except (ValueError, RecursionError):
            return cls(None, raw)

    @property
    def is_empty(self) -> bool:
        """JSON's null: there is no message in it."""
        return self.value is None and self._raw is None

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The object's fields; empty for content of another kind."""
        return self.value if isinstance(self.value, dict) else {}

    @cached_property
    def text(self) -> str:
        """The text that engage patterns see. A field that is no text is taken as JavaScript would write it."""
        if self._raw is not None:
            return self._raw
        try:
            return _as_text(self.fields.get("text"))
        except RecursionError:
            return ""

    @cached_property
    def command_text(self) -> str:
        """The text that may hold a command."""
        if self._raw is not None:
            return self._raw
        text = self.fields.get("text")
        return text if isinstance(text, str) else ""

    @cached_property
    def sender(self) -> Sender:
        found = self.fields.get("author")
        author = found if isinstance(found, dict) else {}
        handles = (self.fields.get("senderId"), self.fields.get("sender"), author.get("userId"))
        names = (self.fields.get("senderName"), author.get("fullName"), author.get("userName"))
        return Sender(_first_text(handles), _first_text(names), _first_text((self.fields.get("sender"),)))


def _first_text(candidates: tuple[Any, ...]) -> str | None:
    found = next((value for value in candidates if isinstance(value, str)), None)
    # Names are stored, and no database holds half a surrogate pair or, on PostgreSQL, a NUL.
    return None if found is None else found.encode(errors="replace").decode().replace("\0", "")


def _as_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e21:
            return str(int(value))
        case list():
            return ",".join(map(_as_text, value))
        case dict():
            return "[object Object]"
    return str(value)
