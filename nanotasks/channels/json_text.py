"""JSON from outside, read so that whatever passes can be stored anywhere and written again.

Stricter than RFC 8259 readers usually are: no NaN or infinity (other readers refuse them), at most 100 levels
(deeper ones exhaust some reader's stack), UTF-8 only. Half of a surrogate pair, which neither SQLite nor
PostgreSQL can hold, becomes U+FFFD.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from nanotasks.errors import InvalidError

MAX_DEPTH = 100


def parse(raw: bytes | str) -> Any:
    """The value of a JSON text. Raises `InvalidError` that says where and why it cannot be read."""
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidError(
            "This is not UTF-8 text.", why=f"Byte {error.start} cannot be read.", fix="Encode it as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        raise InvalidError(
            "This is not JSON.",
            why=f"{error.msg} at line {error.lineno}, column {error.colno}.",
            fix="Write one JSON object.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidError(
            "This JSON cannot be used.", why=f"{str(error).splitlines()[0]}.", fix="Write what RFC 8259 allows."
        ) from None
    return _storable(value, 0)


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """The object of a JSON text. Raises `InvalidError` also for any other kind of value."""
    value = parse(raw)
    if not isinstance(value, dict):
        raise InvalidError("This is not a JSON object.", why=f"It is {_kind(value)}.", fix="Write {…}.")
    return value


def _storable(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidError(
            "This JSON is nested too deeply.", why=f"{MAX_DEPTH} levels are allowed.", fix="Write it flatter."
        )
    if isinstance(value, str):
        return _whole_text(value)
    if isinstance(value, list):
        return [_storable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_whole_text(key): _storable(item, depth + 1) for key, item in value.items()}
    return value


def _whole_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
