"""What an agent sends, as plain text: for channels that have no cards, buttons, edits or reactions of their own.

Content comes from an agent, so any field may have any shape; what cannot be read is shown as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Content = Mapping[str, Any]


def as_text(content: Content) -> str:
    """The text of one outbound content; empty when there is nothing to show besides files."""
    for applies, render in _FORMS:
        if applies(content):
            return render(content)
    rest = {name: value for name, value in content.items() if name != "files"}
    return json.dumps(rest, ensure_ascii=False) if rest else ""


def _reaction(content: Content) -> str:
    return f"({_text(content.get('emoji'))} to {_text(content.get('messageId'))})"


def _edit(content: Content) -> str:
    return f"(edited) {_said(content)}"


def _said(content: Content) -> str:
    return _text(content.get("text") if content.get("text") is not None else content.get("markdown"))


def _question(content: Content) -> str:
    options = content.get("options")
    labels = [_label(option) for option in options] if isinstance(options, list) else []
    numbered = [f"  {number}. {label}" for number, label in enumerate(labels, start=1)]
    return _lines(content.get("title"), content.get("question"), *numbered)


def _card(content: Content) -> str:
    card = content.get("card")
    if not isinstance(card, Mapping):
        return _text(content.get("fallbackText"))
    children, actions = card.get("children"), card.get("actions")
    parts = [_label(child, "text") for child in children] if isinstance(children, list) else []
    links = [f"{_label(action)}: {_text(action['url'])}" for action in _listed(actions) if "url" in action]
    return _lines(card.get("title"), card.get("description"), *parts, *links) or _text(content.get("fallbackText"))


_FORMS: tuple[tuple[Callable[[Content], bool], Callable[[Content], str]], ...] = (
    (lambda content: content.get("operation") == "reaction", _reaction),
    (lambda content: content.get("operation") == "edit", _edit),
    (lambda content: content.get("type") == "ask_question", _question),
    (lambda content: content.get("type") == "card", _card),
    (lambda content: "text" in content or "markdown" in content, _said),
)


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _label(option: Any, name: str = "label") -> str:
    return _text(option.get(name)) if isinstance(option, Mapping) else _text(option)


def _lines(*parts: Any) -> str:
    return "\n".join(text for text in map(_text, parts) if text)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
