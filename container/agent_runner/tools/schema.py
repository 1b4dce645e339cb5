"""Checking a model's arguments against a tool's JSON schema, as far as ours go: an object of typed properties."""

from __future__ import annotations

from typing import Any

from agent_runner.tools.contract import ToolError

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_ARTICLE = {"integer": "an", "array": "an", "object": "an"}


def check(schema: dict[str, Any], arguments: Any) -> dict[str, Any]:
    """The declared arguments that are there; null counts as absent, unknown ones are ignored. Raises `ToolError`."""
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise ToolError("arguments must be an object")
    checked = {}
    for name, wanted in schema["properties"].items():
        value = arguments.get(name)
        if value is None:
            continue
        kind = wanted["type"]
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            raise ToolError(f"{name} must be {_ARTICLE.get(kind, 'a')} {kind}")
        checked[name] = value
    return checked
