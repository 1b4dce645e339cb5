"""What is recorded about users: their roles and memberships, as the facts that access is decided on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import BindParameter, Connection, bindparam, literal, select, union_all

from nanotasks.central.base import table_of
from nanotasks.central.users import Member, User, UserRole
from nanotasks.domain.access import NOBODY, Standing

_user, _role, _member = table_of(User).c, table_of(UserRole).c, table_of(Member).c
_asked: BindParameter[str] = bindparam("user_ids", expanding=True)
_WORDS = union_all(
    select(_user.id.label("user_id"), literal("known").label("word"), literal(None).label("group_id")).where(
        _user.id.in_(_asked)
    ),
    select(_role.user_id, _role.role, _role.agent_group_id).where(_role.user_id.in_(_asked)),
    select(_member.user_id, literal("member"), _member.agent_group_id).where(_member.user_id.in_(_asked)),
)


def standings(connection: Connection, user_ids: Collection[str]) -> dict[str, Standing]:
    """The standing of each of these users; one who is not recorded is nobody."""
    words: dict[str, set[tuple[str, str | None]]] = defaultdict(set)
    for user_id, word, group_id in connection.execute(_WORDS, {"user_ids": list(user_ids)}):
        words[user_id].add((word, group_id))
    return {user_id: _standing(words[user_id]) if words[user_id] else NOBODY for user_id in user_ids}


def _standing(words: set[tuple[str, str | None]]) -> Standing:
    return Standing(
        owner=("owner", None) in words,
        global_admin=("admin", None) in words,
        admin_of=_groups(words, "admin"),
        member_of=_groups(words, "member"),
    )


def _groups(words: set[tuple[str, str | None]], wanted: str) -> frozenset[str]:
    return frozenset(group_id for word, group_id in words if word == wanted and group_id is not None)
