"""The state file: groups, chats, users, roles, members, destinations and wirings as they should be.

    groups:        [{folder, name, host, timezone, config: {provider, model, …}}]
    chats:         [{chat: channel:platform_id, name, is_group, unknown_sender_policy, denied}]
    users:         [{user: channel:handle, display_name, timezone}]
    roles:         [{user, role, group}]
    members:       [{user, group}]
    destinations:  [{group, name, chat | agent}]
    wirings:       [{chat, group, engage_mode, engage_pattern, sender_scope, ignored_message_policy, session_mode,
                     priority}]

Groups go by their folder (made from the name when it is left out), chats by their place, so that a file means the
same on every installation. A field that is left out is not touched; null empties it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nanotasks.domain.group_config import FIELDS as CONFIG_FIELDS
from nanotasks.domain.group_config import what_is_wrong
from nanotasks.domain.names import is_group_folder, normalize_name
from nanotasks.domain.vocabulary import (
    ENGAGE_MODES,
    IGNORED_POLICIES,
    ROLES,
    SENDER_SCOPES,
    SESSION_MODES,
    UNKNOWN_SENDER_POLICIES,
)
from nanotasks.errors import InvalidError
from nanotasks.ops.state_yaml import Mistakes, Place, document

Reader: TypeAlias = Callable[[Place], Any]


@dataclass(frozen=True)
class Entry:
    """One thing as it should be: what names it, and the fields that were given."""

    key: tuple[str | None, ...]
    fields: dict[str, Any]
    path: str
    line: int


@dataclass(frozen=True)
class Section:
    """What the entries of one section hold. `required` fields name the entry, with `optional_key` when it is given."""

    readers: Mapping[str, Reader]
    required: tuple[str, ...]
    optional_key: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()


@dataclass
class State:
    """A whole file, section by section, in the order in which `apply` goes through it."""

    sections: dict[str, list[Entry]] = field(default_factory=dict)

    def count(self) -> int:
        """How many entries there are."""
        return sum(len(entries) for entries in self.sections.values())


def _words(*words: str) -> Reader:
    return lambda place: place.word(words)


def _place(place: Place) -> str | None:
    text = place.text()
    if text is not None and not all(text.partition(":")):
        place.wrong("must be channel:id, for example file:family")
        return None
    return text


def _folder(place: Place) -> str | None:
    text = place.text()
    if text is not None and not is_group_folder(text):
        place.wrong(f"cannot be a folder; use {normalize_name(text)}, for example")
        return None
    return text


def _local_name(place: Place) -> str | None:
    text = place.text()
    if text is not None and text != normalize_name(text):
        place.wrong(f"cannot be a destination's name; use {normalize_name(text)}")
        return None
    return text


def _config(place: Place) -> dict[str, Any]:
    values = {}
    for name, entry in place.known_entries(dict.fromkeys(CONFIG_FIELDS)).items():
        values[name] = entry.value()
        problem = what_is_wrong(name, values[name])
        if problem:
            entry.wrong(problem)
    return values


SECTIONS: Mapping[str, Section] = {
    "groups": Section(
        {"folder": _folder, "name": Place.text, "host": Place.text, "timezone": Place.text, "config": _config},
        ("folder",),
        nullable=frozenset({"host", "timezone"}),
    ),
    "chats": Section(
        {
            "chat": _place,
            "name": Place.text,
            "is_group": Place.flag,
            "unknown_sender_policy": _words(*UNKNOWN_SENDER_POLICIES),
            "denied": Place.flag,
        },
        ("chat",),
        nullable=frozenset({"name"}),
    ),
    "users": Section(
        {"user": _place, "display_name": Place.text, "timezone": Place.text},
        ("user",),
        nullable=frozenset({"display_name", "timezone"}),
    ),
    "roles": Section(
        {"user": _place, "role": _words(*ROLES), "group": _folder},
        ("user", "role"),
        ("group",),
        nullable=frozenset({"group"}),
    ),
    "members": Section({"user": _place, "group": _folder}, ("user", "group")),
    "destinations": Section(
        {"group": _folder, "name": _local_name, "chat": _place, "agent": _folder}, ("group", "name")
    ),
    "wirings": Section(
        {
            "chat": _place,
            "group": _folder,
            "engage_mode": _words(*ENGAGE_MODES),
            "engage_pattern": Place.text,
            "sender_scope": _words(*SENDER_SCOPES),
            "ignored_message_policy": _words(*IGNORED_POLICIES),
            "session_mode": _words(*SESSION_MODES),
            "priority": Place.number,
        },
        ("chat", "group"),
        nullable=frozenset({"engage_pattern"}),
    ),
}


def parse(text: str, name: str = "The state file") -> State:
    """The state that a YAML or JSON text describes. Raises `InvalidError` with every mistake, its path and line."""
    mistakes = Mistakes()
    root = document(text, mistakes)
    state = State({section: [] for section in SECTIONS})
    for section, place in root.known_entries(SECTIONS).items() if root is not None else ():
        for item in place.items():
            entry = _entry(SECTIONS[section], item)
            if entry is not None:
                if any(other.key == entry.key for other in state.sections[section]):
                    item.wrong(f"is the second entry for {' '.join(part for part in entry.key if part)}")
                state.sections[section].append(entry)
    if mistakes.lines:
        count = len(mistakes.lines)
        raise InvalidError(
            f"{name} has {count} mistake{'s' if count > 1 else ''}; nothing was changed.", why="\n".join(mistakes.lines)
        )
    return state


def _entry(section: Section, item: Place) -> Entry | None:
    fields: dict[str, Any] = {}
    before = len(item.mistakes.lines)
    for name, place in item.known_entries(section.readers).items():
        null = place.is_null() and name in section.nullable
        fields[name] = None if null else section.readers[name](place)
    if "folder" in section.required and fields.get("name"):
        made = normalize_name(fields["name"])
        if is_group_folder(made):
            fields.setdefault("folder", made)
    missing = [name for name in section.required if name not in fields]
    if missing and len(item.mistakes.lines) == before:
        item.wrong(f"needs {' and '.join(missing)}")
    if len(item.mistakes.lines) > before:
        return None
    key = tuple(fields.pop(name, None) for name in (*section.required, *section.optional_key))
    return Entry(key, fields, item.path, item.node.start_mark.line + 1)
