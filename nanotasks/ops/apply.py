"""Making a state file so: what is missing is created, what differs is changed, the rest is left alone.

All of it happens in the caller's transaction, so a mistake half-way leaves nothing behind, and a dry run is the
same work rolled back. Nothing is ever deleted: what is not in the file is not the file's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.agents.chats import change_chat, create_chat
from nanotasks.agents.destinations import change_destination, create_destination
from nanotasks.agents.groups import change_config, change_group, create_group
from nanotasks.agents.moving import Moved
from nanotasks.agents.wirings import change_wiring, create_wiring
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup
from nanotasks.central.users import Member, User, UserRole
from nanotasks.clock import now_ms
from nanotasks.errors import InvalidError, NanotasksError
from nanotasks.ops.export import config_of, fields_of_chat, fields_of_wiring
from nanotasks.ops.state_file import SECTIONS, Entry, State
from nanotasks.ops.suggest import did_you_mean
from nanotasks.people.admin import add_member, change_user, create_user, grant_role


@dataclass(frozen=True)
class Change:
    """One step: `create` with the fields given, or `update` with the old and new value of each field."""

    action: str
    noun: str
    key: str
    fields: dict[str, Any]


@dataclass
class Plan:
    """What was changed, what was as it should be, whose destinations are other than before, and which groups moved."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    reprojected: set[str] = field(default_factory=set)
    moves: list[Moved] = field(default_factory=list)


class UnknownError(InvalidError):
    """An entry names something that is not there: `name`, which would stand in `section`."""

    def __init__(self, noun: str, name: str, section: str, known: list[str]) -> None:
        fix = did_you_mean(name, known) or f"Add it to the section {section}."
        super().__init__(f"there is no {noun} {name}.", fix=fix)
        self.section, self.name = section, name


@dataclass(frozen=True)
class _Mistake:
    where: str
    error: NanotasksError


def apply(session: Session, state: State) -> Plan:
    """Make the state so. Raises `InvalidError` naming path and line of every entry that cannot be."""
    plan = Plan()
    mistakes: list[_Mistake] = []
    failed: set[tuple[str, str]] = set()
    for noun, entries in state.sections.items():
        for entry in entries:
            problems: list[NanotasksError] = [*_unknown_names(session, noun, entry)]
            try:
                change = None if problems else _APPLIERS[noun](session, entry, plan)
            except NanotasksError as error:
                problems.append(error)
            if problems:
                failed.add((noun, str(entry.key[0])))
                mistakes += [_Mistake(f"{entry.line}, {entry.path}: ", one) for one in problems if _is_new(one, failed)]
            elif change is None:
                plan.unchanged += 1
            else:
                plan.changes.append(Change(change[0], noun, " ".join(part for part in entry.key if part), change[1]))
    if mistakes:
        raise _refused(mistakes) from mistakes[0].error
    return plan


def _unknown_names(session: Session, noun: str, entry: Entry) -> list[UnknownError]:
    """Every name of another section's entry that is not there."""
    if noun in _NAMED:
        return []
    section = SECTIONS[noun]
    names = dict(zip((*section.required, *section.optional_key), entry.key, strict=True)) | entry.fields
    unknown = []
    for field_name, require in _FINDERS.items():
        try:
            if names.get(field_name):
                require(session, names[field_name])
        except UnknownError as error:
            unknown.append(error)
    return unknown


def _is_new(error: NanotasksError, failed: set[tuple[str, str]]) -> bool:
    """What only names an entry that failed itself is mended with that one."""
    return not (isinstance(error, UnknownError) and (error.section, error.name) in failed)


def _refused(mistakes: list[_Mistake]) -> InvalidError:
    if len(mistakes) == 1:
        where, error = mistakes[0].where, mistakes[0].error
        return InvalidError(f"Line {where}{error.what}", why=error.why, fix=error.fix)
    lines = [f"line {one.where}{one.error}" for one in mistakes]
    return InvalidError(f"{len(mistakes)} things cannot be; nothing was changed.", why="\n".join(lines))


_Step: TypeAlias = tuple[str, dict[str, Any]] | None


def _group(session: Session, entry: Entry, plan: Plan) -> _Step:
    folder = str(entry.key[0])
    found = session.scalars(select(AgentGroup).where(AgentGroup.folder == folder)).one_or_none()
    config = entry.fields.get("config", {})
    if found is None:
        host = entry.fields.get("host")
        zone = entry.fields.get("timezone")
        name = entry.fields.get("name", folder)
        create_group(session, name, folder=folder, host_id=host, timezone=zone, config=config)
        return "create", entry.fields
    own = _differences(
        {"name": found.name, "host_id": found.host_id, "timezone": found.timezone},
        {{"host": "host_id"}.get(name, name): value for name, value in entry.fields.items() if name != "config"},
    )
    inner = _differences(config_of(session, found), config)
    moved = change_group(session, found, _new(own))
    if moved is not None:
        plan.moves.append(moved)
    if inner:
        change_config(session, found, _new(inner))
    return _updated(own | {f"config.{name}": pair for name, pair in inner.items()})


def _chat(session: Session, entry: Entry, _plan: Plan) -> _Step:
    channel_type, _, platform_id = str(entry.key[0]).partition(":")
    found = _find_chat(session, str(entry.key[0]))
    fields = dict(entry.fields)
    if found is None:
        denied = fields.pop("denied", False)
        chat = create_chat(session, channel_type, platform_id, **fields)
        if denied:
            change_chat(session, chat, {"denied_at": now_ms()})
        return "create", entry.fields
    differences = _differences(fields_of_chat(found), fields)
    changes = _new(differences)
    if "denied" in changes:
        changes["denied_at"] = now_ms() if changes.pop("denied") else None
    change_chat(session, found, changes)
    return _updated(differences)


def _user(session: Session, entry: Entry, _plan: Plan) -> _Step:
    user_id = str(entry.key[0])
    found = session.get(User, user_id)
    if found is None:
        create_user(session, user_id, **entry.fields)
        return "create", entry.fields
    before = {"display_name": found.display_name, "timezone": found.timezone}
    differences = _differences(before, entry.fields)
    change_user(found, _new(differences))
    return _updated(differences)


def _role(session: Session, entry: Entry, _plan: Plan) -> _Step:
    user_id, word, folder = entry.key
    group = _require_group(session, folder) if folder else None
    scope = group.id if group else None
    same = select(UserRole.id).where(
        UserRole.user_id == user_id, UserRole.role == word, UserRole.agent_group_id.is_not_distinct_from(scope)
    )
    if session.scalars(same).first() is not None:
        return None
    grant_role(session, _require_user(session, user_id), str(word), group)
    return "create", {}


def _member(session: Session, entry: Entry, _plan: Plan) -> _Step:
    user, group = _require_user(session, entry.key[0]), _require_group(session, entry.key[1])
    if session.get(Member, (user.id, group.id)) is not None:
        return None
    add_member(session, user, group)
    return "create", {}


def _destination(session: Session, entry: Entry, plan: Plan) -> _Step:
    group = _require_group(session, entry.key[0])
    if ("chat" in entry.fields) == ("agent" in entry.fields):
        raise InvalidError("A destination leads to one place.", fix="Give either chat or agent.")
    target: Chat | AgentGroup = (
        _require_chat(session, entry.fields["chat"])
        if "chat" in entry.fields
        else _require_group(session, entry.fields["agent"])
    )
    found = session.get(Destination, (group.id, entry.key[1]))
    if found is None:
        create_destination(session, group, str(entry.key[1]), target)
        plan.reprojected.add(group.id)
        return "create", entry.fields
    if found.target_id == target.id:
        return None
    before = found.target_id
    change_destination(session, group, found, target=target)
    plan.reprojected.add(group.id)
    return "update", {"target": [before, target.id]}


def _wiring(session: Session, entry: Entry, plan: Plan) -> _Step:
    chat, group = _require_chat(session, entry.key[0]), _require_group(session, entry.key[1])
    found = session.scalars(
        select(Wiring).where(Wiring.messaging_group_id == chat.id, Wiring.agent_group_id == group.id)
    ).one_or_none()
    if found is None:
        create_wiring(session, chat, group, entry.fields)
        plan.reprojected.add(group.id)
        return "create", entry.fields
    differences = _differences(fields_of_wiring(found), entry.fields)
    if differences:
        change_wiring(session, found, _new(differences))
    return _updated(differences)


def _differences(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {name: [present[name], value] for name, value in wanted.items() if present[name] != value}


def _new(differences: Mapping[str, list[Any]]) -> dict[str, Any]:
    return {name: pair[1] for name, pair in differences.items()}


def _updated(differences: dict[str, list[Any]]) -> _Step:
    return ("update", differences) if differences else None


def _find_chat(session: Session, place: str) -> Chat | None:
    channel_type, _, platform_id = place.partition(":")
    return session.scalars(
        select(Chat).where(Chat.channel_type == channel_type, Chat.platform_id == platform_id)
    ).one_or_none()


def _require_chat(session: Session, place: str | None) -> Chat:
    found = _find_chat(session, str(place))
    if found is None:
        known = session.scalars(select(Chat.channel_type + ":" + Chat.platform_id))
        raise UnknownError("chat", str(place), "chats", list(known))
    return found


def _require_group(session: Session, folder: str | None) -> AgentGroup:
    found = session.scalars(select(AgentGroup).where(AgentGroup.folder == folder)).one_or_none()
    if found is None:
        raise UnknownError("agent group", str(folder), "groups", list(session.scalars(select(AgentGroup.folder))))
    return found


def _require_user(session: Session, user_id: str | None) -> User:
    found = session.get(User, user_id)
    if found is None:
        raise UnknownError("user", str(user_id), "users", list(session.scalars(select(User.id))))
    return found


_FINDERS: Mapping[str, Callable[[Session, str], object]] = {
    "chat": _require_chat,
    "user": _require_user,
    "group": _require_group,
    "agent": _require_group,
}
_NAMED = {"groups", "chats", "users"}
_APPLIERS: Mapping[str, Callable[[Session, Entry, Plan], _Step]] = {
    "groups": _group,
    "chats": _chat,
    "users": _user,
    "roles": _role,
    "members": _member,
    "destinations": _destination,
    "wirings": _wiring,
}
