"""From rows to the text of a prompt; the shapes are those of NanoClaw 2.

    <context timezone="Europe/Paris" />
    <messages>
    <message id="2" from="family" sender="Ann" time="Feb 4, 2026, 1:30 PM">hello</message>
    …

Chat rows come first, then tasks, webhooks and system rows, each kind in the order of the chat. Every part that
somebody else wrote is escaped or, where it is shown as it is (task prompts, JSON), cannot open or close one of our
elements. Content of any shape is shown as what it is; a row that still cannot be rendered is reported, alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from agent_runner import clock, log
from agent_runner.commands import CHAT_KINDS, raw_command
from agent_runner.destinations import name_of
from agent_runner.rows import Destination, InboundRow
from agent_runner.values import (
    as_text,
    field,
    parse_content,
    storable,
    text_or,
    to_json,
    to_pretty_json,
    truthy,
)

_OUR_TAGS = re.compile(
    r"<(?=/?(?:context|messages?|quoted_message|task|webhook|system_response|system)\b)", re.IGNORECASE
)


class Rendered(NamedTuple):
    """The prompt's text, the rows it shows, and those that could not be rendered. An unknown kind is in neither."""

    text: str
    shown: tuple[InboundRow, ...]
    failed: tuple[InboundRow, ...]


class Formatter:
    """Renders rows for one workspace, whose path prefixes the attachments that are saved in it."""

    def __init__(self, workspace: str, zone: str | None = None) -> None:
        self._workspace = workspace
        self._zone = zone or clock.local_zone()

    def prompt(
        self, rows: Sequence[InboundRow], destinations: Sequence[Destination], *, raw_commands: bool
    ) -> Rendered:
        """All rows in one text. With `raw_commands`, slash commands stand between the others as they were typed."""
        parts: list[str] = []
        shown: list[InboundRow] = []
        failed: list[InboundRow] = []
        run: list[tuple[str, str]] = []
        for row in rows:
            try:
                command = raw_command(row) if raw_commands else None
                element = self.element(row, destinations)
            except Exception as error:  # one strange row must not take the others with it
                log.error("row_not_renderable", id=row.id, error=repr(error))
                failed.append(row)
                continue
            if element is None:
                continue
            shown.append(row)
            if command is None:
                run.append((row.kind, element))
                continue
            if run:
                parts.append(self._assemble(run))
            parts.append(command)
            run = []
        if run or not parts:
            parts.append(self._assemble(run))
        return Rendered(storable("\n\n".join(parts)), tuple(shown), tuple(failed))

    def element(self, row: InboundRow, destinations: Iterable[Destination]) -> str | None:
        """One row as its element; None for a kind that has none."""
        render = _RENDERERS.get(row.kind)
        if render is None:
            return None
        origin = name_of(destinations, row.route)
        return render(self, row, "" if origin is None else f' from="{escape(origin)}"', parse_content(row.content))

    def header(self) -> str:
        return f'<context timezone="{escape(self._zone)}" />\n'

    def _assemble(self, elements: Sequence[tuple[str, str]]) -> str:
        chats = [text for kind, text in elements if kind in CHAT_KINDS]
        sections = ["\n".join(["<messages>", *chats, "</messages>"])] if len(chats) > 1 else chats
        for wanted in ("task", "webhook", "system"):
            sections.extend(text for kind, text in elements if kind == wanted)
        return self.header() + "\n\n".join(sections)

    def _chat(self, row: InboundRow, origin: str, content: Any) -> str:
        author = field(content, "author")
        sender = next(
            (
                name
                for name in (field(content, "sender"), field(author, "fullName"), field(author, "userName"))
                if truthy(name)
            ),
            "Unknown",
        )
        reply = field(content, "replyTo")
        attributes = ("" if row.seq is None else f' id="{row.seq}"') + origin
        attributes += f' sender="{escape(as_text(sender))}" time="{self._time(row)}"'
        if truthy(field(reply, "id")):
            attributes += f' reply_to="{escape(as_text(field(reply, "id")))}"'
        body = (
            _quote(reply)
            + escape(text_or(field(content, "text"), ""))
            + self._attachments(field(content, "attachments"))
        )
        return f"<message{attributes}>{body}</message>"

    def _task(self, row: InboundRow, origin: str, content: Any) -> str:
        output = field(content, "scriptOutput")
        script = f"Script output:\n{_contain_json(to_pretty_json(output))}\n\n" if truthy(output) else ""
        prompt = _contain(text_or(field(content, "prompt"), ""))
        return f'<task{origin} time="{self._time(row)}">{script}Instructions:\n{prompt}</task>'

    def _webhook(self, _row: InboundRow, origin: str, content: Any) -> str:
        source, event = (escape(text_or(field(content, name), "unknown")) for name in ("source", "event"))
        payload = field(content, "payload")
        body = _contain_json(to_pretty_json(payload if truthy(payload) else content))
        return f'<webhook{origin} source="{source}" event="{event}">{body}</webhook>'

    def _system(self, _row: InboundRow, origin: str, content: Any) -> str:
        action, status = (escape(text_or(field(content, name), "unknown")) for name in ("action", "status"))
        result = field(content, "result")
        body = _contain_json(to_json(result if truthy(result) else None))
        return f'<system_response{origin} action="{action}" status="{status}">{body}</system_response>'

    def _time(self, row: InboundRow) -> str:
        return clock.show(row.timestamp, self._zone)

    def _attachments(self, attachments: Any) -> str:
        if not isinstance(attachments, list):
            return ""
        return "".join(f"\n[{self._attachment(attachment)}]" for attachment in attachments)

    def _attachment(self, attachment: Any) -> str:
        kind = _contain(text_or(field(attachment, "type"), "file"))
        name = escape(text_or(field(attachment, "name"), text_or(field(attachment, "filename"), "attachment")))
        local, url = field(attachment, "localPath"), field(attachment, "url")
        if truthy(local):
            return f"{kind}: {name} — saved to {escape(f'{self._workspace}/{as_text(local)}')}"
        return f"{kind}: {name} ({escape(as_text(url))})" if truthy(url) else f"{kind}: {name}"


def escape(text: str) -> str:
    """The four characters that have a meaning in our elements."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _quote(reply: Any) -> str:
    sender, text = field(reply, "sender"), field(reply, "text")
    if not (truthy(sender) and truthy(text)):
        return ""
    return f'\n  <quoted_message from="{escape(as_text(sender))}">{escape(as_text(text))}</quoted_message>\n'


def _contain(text: str) -> str:
    return _OUR_TAGS.sub("&lt;", text)


def _contain_json(text: str) -> str:
    return _OUR_TAGS.sub(r"\\u003c", text)


_RENDERERS: dict[str, Callable[[Formatter, InboundRow, str, Any], str]] = {
    "chat": Formatter._chat,
    "chat-sdk": Formatter._chat,
    "task": Formatter._task,
    "webhook": Formatter._webhook,
    "system": Formatter._system,
}
