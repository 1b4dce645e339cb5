"""Reading YAML (or JSON, which is YAML here) so that every mistake has a path and a line.

Values are taken from the parse tree by what the reader expects, not by what YAML would guess: where a text is
expected, `no`, `007` and `12:30` are those texts. All mistakes of a document are collected before it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from nanotasks.ops.suggest import did_you_mean

_MAX_DEPTH = 50
_UNLIKE_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}


@dataclass
class Mistakes:
    """What is wrong with a document, one line each: `line 7, wirings[0].engage_mode: …`."""

    lines: list[str] = field(default_factory=list)

    def add(self, node: yaml.Node, path: str, problem: str) -> None:
        self.lines.append(f"line {node.start_mark.line + 1}, {path}: {problem}")


@dataclass(frozen=True)
class Place:
    """One node of the document, with its path and the list its mistakes go to."""

    node: yaml.Node
    path: str
    mistakes: Mistakes

    def wrong(self, problem: str) -> None:
        """Note a mistake here."""
        self.mistakes.add(self.node, self.path, problem)

    def entries(self) -> dict[str, Place]:
        """The entries of a mapping by key; anything else, a double key too, is a mistake."""
        found: dict[str, Place] = {}
        if not isinstance(self.node, yaml.MappingNode):
            self.wrong("must be a mapping of names to values")
            return found
        for key, value in self.node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            place = Place(value, f"{self.path}.{name}" if self.path else name, self.mistakes)
            if name in found:
                self.mistakes.add(key, place.path, "is there twice")
            found[name] = place
        return found

    def known_entries(self, known: Mapping[str, Any]) -> dict[str, Place]:
        """`entries()`, where a key that is not in `known` is a mistake."""
        found = self.entries()
        for name, place in found.items():
            if name not in known:
                hint = did_you_mean(name, known) or f"There are {', '.join(known)}."
                self.mistakes.add(place.node, place.path, f"is unknown. {hint}")
        return {name: place for name, place in found.items() if name in known}

    def items(self) -> Iterator[Place]:
        """The items of a list; nothing at all counts as an empty one."""
        if self.is_null():
            return
        if not isinstance(self.node, yaml.SequenceNode):
            self.wrong("must be a list")
            return
        for index, node in enumerate(self.node.value):
            yield Place(node, f"{self.path}[{index}]", self.mistakes)

    def is_null(self) -> bool:
        return self.node.tag == "tag:yaml.org,2002:null"

    def text(self) -> str | None:
        """A text that is not empty; None after a mistake."""
        if isinstance(self.node, yaml.ScalarNode) and not self.is_null() and self.node.value.strip():
            return whole(self.node.value)
        self.wrong("must be a text")
        return None

    def flag(self) -> bool | None:
        """true or false; None after a mistake."""
        word = self.node.value.lower() if isinstance(self.node, yaml.ScalarNode) else ""
        if word in _TRUE | _FALSE:
            return word in _TRUE
        self.wrong("must be true or false")
        return None

    def number(self) -> int | None:
        """A whole number; None after a mistake."""
        try:
            return int(self.node.value)
        except (TypeError, ValueError):
            self.wrong("must be a whole number")
            return None

    def word(self, words: tuple[str, ...]) -> str | None:
        """One of these words; None after a mistake."""
        found = self.node.value if isinstance(self.node, yaml.ScalarNode) else ""
        if found in words:
            return str(found)
        hint = did_you_mean(found, words)
        self.wrong(f"is {found!r}, but must be one of {', '.join(words)}.{' ' + hint if hint else ''}")
        return None

    def value(self, depth: int = 0) -> Any:
        """Any plain value, by YAML's own rules."""
        if depth > _MAX_DEPTH:
            self.wrong("is nested too deeply")
            return None
        if isinstance(self.node, yaml.MappingNode):
            return {name: place.value(depth + 1) for name, place in self.entries().items()}
        if isinstance(self.node, yaml.SequenceNode):
            return [place.value(depth + 1) for place in self.items()]
        kind = self.node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return self.flag()
        if kind == "int":
            return self.number()
        if kind == "float":
            return float(self.node.value)
        return whole(self.node.value)


def document(text: str, mistakes: Mistakes) -> Place | None:
    """The root of a document; None when it is empty or, after a mistake, when it cannot be parsed."""
    try:
        node = yaml.compose(_as_yaml(text), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        mistakes.lines.append(f"line {line}: {error.problem}")
        return None
    except (yaml.YAMLError, RecursionError) as error:
        mistakes.lines.append(str(error).splitlines()[0] or "cannot be read")
        return None
    return None if node is None else Place(node, "", mistakes)


def _as_yaml(text: str) -> str:
    """JSON as YAML takes it: tabs can only stand between its values, what YAML forbids or folds only within texts."""
    if not text.lstrip().startswith("{"):
        return text
    return _UNLIKE_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\t", " "))


def whole(text: str) -> str:
    """The text with surrogate pairs, as JSON escapes write them, joined to characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def written(value: Any) -> str:
    """A document that `document` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes and escapes what YAML would fold or lose, such as U+0085 and U+2028."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
