"""`container.json`, which the host writes before every start. Reading it never fails.

A missing or unreadable file, or a field of the wrong type, gives the default and a line in the log. Fields that only
the host uses are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from agent_runner import log

DEFAULT_PROVIDER = "demo"
DEFAULT_MESSAGES = 10


class Config(NamedTuple):
    """The agent group's configuration, fixed for the life of the process.

    `host_answers`: the host answers requests about scheduled tasks, so tools wait for what it says.
    """

    provider: str = DEFAULT_PROVIDER
    assistant_name: str = ""
    max_messages: int = DEFAULT_MESSAGES
    mcp_servers: dict[str, Any] = {}
    model: str | None = None
    effort: str | None = None
    host_answers: bool = False


def load(path: str) -> Config:
    try:
        with open(path, encoding="utf-8") as file:
            raw = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        log.warning("config_unreadable", path=path, error=error)
        return Config()
    if not isinstance(raw, dict):
        log.warning("config_unreadable", path=path, error="not an object")
        return Config()
    provider = (_take(raw, "provider", _is_text) or DEFAULT_PROVIDER).strip().lower()
    return Config(
        provider=DEFAULT_PROVIDER if provider in ("", "auto") else provider,
        assistant_name=_take(raw, "assistantName", _is_text) or "",
        max_messages=_take(raw, "maxMessagesPerPrompt", _is_count) or DEFAULT_MESSAGES,
        mcp_servers=_take(raw, "mcpServers", _is_object) or {},
        model=_take(raw, "model", _is_text) or None,
        effort=_take(raw, "effort", _is_text) or None,
        host_answers=_take(raw, "hostAnswers", _is_flag) or False,
    )


def _take(raw: dict[str, Any], name: str, accept: Callable[[Any], bool]) -> Any:
    value = raw.get(name)
    if value is None or accept(value):
        return value
    log.warning("config_field_ignored", field=name, type=type(value).__name__)
    return None


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10_000
