"""Reading the JSON content of a row without ever failing.

Content is written by adapters, other agents and webhooks, so any field may have any shape. Defaults replace falsy
values in the sense of NanoClaw 2's JavaScript: null, false, 0 and the empty string, but not an empty list or object.
"""

from __future__ import annotations

import json
from typing import Any


def parse_content(raw: str) -> Any:
    """The JSON value of a row's content; a text that is not JSON counts as `{"text": raw}`."""
    try:
        return json.loads(raw, parse_float=_number, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {"text": raw}


def field(value: Any, name: str) -> Any:
    """`value[name]`, or None when `value` is not an object or has no such field."""
    return value.get(name) if isinstance(value, dict) else None


def truthy(value: Any) -> bool:
    return isinstance(value, dict | list) or bool(value)


def as_text(value: Any) -> str:
    """`value` as a person would write it: a string as it is, nothing for null, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else to_json(value)


def text_or(value: Any, default: str) -> str:
    """`value` as text, or `default` when it is falsy."""
    return as_text(value) if truthy(value) else default


def to_json(value: Any) -> str:
    """Compact JSON: some readers of the session files look for `"key":"value"` as a substring."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_pretty_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def storable(text: str) -> str:
    """`text` with lone surrogates (JSON can carry them, UTF-8 and SQLite cannot) replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _number(literal: str) -> int | float:
    # JSON knows one kind of number: 1.0 and 1 are the same, and are shown as 1.
    number = float(literal)
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
