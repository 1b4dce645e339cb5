"""Slash commands in the text of a chat row. The host has already decided who may use one; rules of NanoClaw 2.

| category | commands | here |
|---|---|---|
| admin | `/remote-control /clear /compact /context /cost /files` | `/clear` is the runner's, the others go raw (*) |
| filtered | `/help /login /logout /doctor /config /start` | ordinary text |
| passthrough | any other `/…` | raw (*) |

(*) to a provider that knows slash commands; ordinary text for the others.
"""

from __future__ import annotations

from typing import NamedTuple

from agent_runner.rows import InboundRow
from agent_runner.values import as_text, field, first_word, parse_content, trim

ADMIN = frozenset({"/remote-control", "/clear", "/compact", "/context", "/cost", "/files"})
FILTERED = frozenset({"/help", "/login", "/logout", "/doctor", "/config", "/start"})
CHAT_KINDS = ("chat", "chat-sdk")


class Command(NamedTuple):
    """`category` is `admin`, `filtered`, `passthrough` or `none`; `name` is the first word in lower case."""

    category: str
    name: str
    text: str


def classify(row: InboundRow) -> Command:
    text = trim(as_text(field(parse_content(row.content), "text")))
    if not text.startswith("/"):
        return Command("none", "", text)
    name = first_word(text).lower()
    if name in ADMIN:
        return Command("admin", name, text)
    return Command("filtered" if name in FILTERED else "passthrough", name, text)


def is_clear(row: InboundRow) -> bool:
    """Whether the row asks to forget the conversation: the command itself, not a word that begins like it."""
    return row.kind in CHAT_KINDS and classify(row).name == "/clear"


def raw_command(row: InboundRow) -> str | None:
    """The text a provider that knows slash commands gets as it is; None for everything else."""
    if row.kind not in CHAT_KINDS:
        return None
    command = classify(row)
    return command.text if command.category in ("admin", "passthrough") else None
