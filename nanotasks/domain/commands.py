"""Slash commands on their way to an agent (NanoClaw 2's gate).

Some belong to the terminal program inside the container and mean nothing in a chat: they go no further. Some
change or show an agent's state: they are for its admins. Every other word after a slash is a message.
"""

from __future__ import annotations

from enum import StrEnum

from nanotasks.domain.text import first_word, trim

GATED_KINDS = frozenset({"chat", "chat-sdk"})
_FILTERED = frozenset({"/help", "/login", "/logout", "/doctor", "/config", "/remote-control"})
_ADMIN_ONLY = frozenset({"/clear", "/compact", "/context", "/cost", "/files"})


class CommandGate(StrEnum):
    PASS = "pass"
    FILTER = "filter"
    REFUSE = "refuse"


def command_of(text: str) -> str | None:
    """The command a text begins with, such as `/clear`, in lower case; None when it is no command."""
    trimmed = trim(text)
    return first_word(trimmed).lower() if trimmed.startswith("/") else None


def gate_command(kind: str, text: str, *, is_admin: bool) -> CommandGate:
    """What becomes of a message of this kind; rows of other kinds are never commands."""
    command = command_of(text) if kind in GATED_KINDS else None
    if command in _FILTERED:
        return CommandGate.FILTER
    return CommandGate.REFUSE if command in _ADMIN_ONLY and not is_admin else CommandGate.PASS


def refusal(text: str) -> str:
    """What the sender is told."""
    return f"Permission denied: {command_of(text)} requires admin access."
