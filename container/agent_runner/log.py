"""One line per event on stderr: `time level event key=value …`. Ids yes, message text only at debug level.

`NANOTASKS_LOG_LEVEL` is `debug`, `info` (the default), `warning` or `error`. Where `NANOTASKS_LOG_FORMAT` is `json`, a
line is a JSON object with `timestamp`, `level`, `event`, `session` and the same fields, as the host's logs have.
"""

from __future__ import annotations

import json
import os
import sys

from agent_runner.clock import now_iso

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_as_json = os.environ.get("NANOTASKS_LOG_FORMAT", "").lower() == "json"
_session = os.environ.get("NANOTASKS_SESSION_ID")
_threshold = _LEVELS.get(os.environ.get("NANOTASKS_LOG_LEVEL", "").lower(), 20)


def debug(event: str, **fields: object) -> None:
    _emit("debug", event, fields)


def info(event: str, **fields: object) -> None:
    _emit("info", event, fields)


def warning(event: str, **fields: object) -> None:
    _emit("warning", event, fields)


def error(event: str, **fields: object) -> None:
    _emit("error", event, fields)


def _emit(level: str, event: str, fields: dict[str, object]) -> None:
    if _LEVELS[level] < _threshold:
        return
    line = _json_line(level, event, fields) if _as_json else _text_line(level, event, fields)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads the log any more; the messages matter more


def _text_line(level: str, event: str, fields: dict[str, object]) -> str:
    return " ".join([now_iso(), level, event, *(f"{name}={_value(value)}" for name, value in fields.items())])


def _json_line(level: str, event: str, fields: dict[str, object]) -> str:
    head = {"timestamp": now_iso(), "level": level, "event": event}
    return json.dumps({**head, **({"session": _session} if _session else {}), **fields}, default=str)


def _value(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    # A value that could be mistaken for the next field, or for the next line, is quoted.
    plain = text.isascii() and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain and text else ascii(text)
