"""Reading the JSON content of a row without ever failing.

Content is written by adapters, other agents and webhooks, so any field may have any shape. Defaults replace falsy
values in the sense of NanoClaw 2's JavaScript: null, false, 0 and the empty string, but not an empty list or object.
"""

from __future__ import annotations

import json
import re
from typing import Any

# White space as JavaScript and the host, which gates commands, see it; Python counts U+001C to U+001F and U+0085 too.
_SPACES = "".join(map(chr, range(0x2000, 0x200B)))
WHITESPACE = f"\t\n\v\f\r \u00a0\u1680{_SPACES}\u2028\u2029\u202f\u205f\u3000\ufeff"
_GAP = re.compile(f"[{WHITESPACE}]+")


def trim(value: str) -> str:
    """The text without white space at either end."""
    return value.strip(WHITESPACE)


def first_word(value: str) -> str:
    """What stands before the first white space of a trimmed text."""
    return _GAP.split(trim(value), maxsplit=1)[0]


def parse_content(raw: str) -> Any:
    """The JSON value of a row's content; a text that is not JSON counts as `{"text": raw}`."""
    try:
        return parse_json(raw)
    except (ValueError, RecursionError):
        return {"text": raw}


def parse_json(raw: str) -> Any:
    """A JSON text as JavaScript reads it. Raises `ValueError` or `RecursionError`."""
    return json.loads(raw, parse_float=_number, parse_constant=_refuse)


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
    return _numbers_as_javascript(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def to_pretty_json(value: Any) -> str:
    return _numbers_as_javascript(json.dumps(value, ensure_ascii=False, indent=2))


# Strings are matched too, so that what looks like a number within one is passed over.
_SMALL_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?e-\d+')


def _numbers_as_javascript(text: str) -> str:
    """Python writes 0.00001 as 1e-05 and 1e-7 as 1e-07."""

    def rewritten(match: re.Match[str]) -> str:
        literal = match[0]
        if literal[0] == '"':
            return literal
        mantissa, _, exponent = literal.partition("e-")
        if int(exponent) > 6:
            return f"{mantissa}e-{int(exponent)}"
        sign = "-" if mantissa[0] == "-" else ""
        return f"{sign}0.{'0' * (int(exponent) - 1)}{mantissa.lstrip('-').replace('.', '')}"

    return _SMALL_NUMBER.sub(rewritten, text) if "e-" in text else text


def storable(text: str) -> str:
    """`text` with lone surrogates (JSON can carry them, UTF-8 and SQLite cannot) replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _number(literal: str) -> int | float | None:
    # JSON knows one kind of number: 1.0 and 1 are the same, and are shown as 1.
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        return None  # as JSON writes it
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
