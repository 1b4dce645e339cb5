"""Who a sender is, and what is recorded about them, on SQLite and PostgreSQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.users import Member, User, UserRole
from nanotasks.domain.access import NOBODY, Standing
from nanotasks.people.identity import Identity, remember
from nanotasks.people.standing import standings


def see(db: Database, *people: Identity) -> None:
    with db.write_core() as connection:
        remember(connection, {person.user_id: person for person in people}, 1)


def users(db: Database) -> dict[str, tuple[str, str | None]]:
    with db.read() as session:
        return {user.id: (user.kind, user.display_name) for user in session.scalars(select(User))}


def test_a_sender_is_remembered_at_the_first_message(central: Database) -> None:
    """The user's kind is the channel it was seen on first."""
    see(central, Identity("tg:1", "tg", "Ann"), Identity("tg:2", "tg", None))
    see(central, Identity("tg:1", "dc", None))
    assert users(central) == {"tg:1": ("tg", "Ann"), "tg:2": ("tg", None)}


def test_a_name_follows_the_platform(central: Database) -> None:
    """A new name replaces the old one; a message without a name keeps it."""
    for name in (None, "Ann", None, "Anna", ""):
        see(central, Identity("tg:1", "tg", name))
    assert users(central) == {"tg:1": ("tg", "Anna")}


def test_two_chats_may_see_the_same_people_at_once(central: Database) -> None:
    """New users that several routers enter at the same time are entered once."""
    people = [Identity(f"tg:{number}", "tg", f"N{number}") for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda turn: see(central, *(people[turn:] + people[:turn])), range(4)))
    assert len(users(central)) == 20


def test_standings(central: Database) -> None:
    """Roles and memberships of several users, each with the groups they hold for."""
    with central.write() as session:
        for group in ("a", "b"):
            session.add(AgentGroup(id=group, name=group, folder=group, created_at=1))
        for name in ("owner", "admin", "scoped", "member", "known"):
            session.add(User(id=f"tg:{name}", kind="tg", created_at=1))
        session.flush()
        session.add(UserRole(user_id="tg:owner", role="owner", granted_at=1))
        session.add(UserRole(user_id="tg:admin", role="admin", granted_at=1))
        session.add(UserRole(user_id="tg:scoped", role="admin", agent_group_id="a", granted_at=1))
        session.add(Member(user_id="tg:member", agent_group_id="a", added_at=1))
        session.add(Member(user_id="tg:member", agent_group_id="b", added_at=1))
    everybody = ["tg:owner", "tg:admin", "tg:scoped", "tg:member", "tg:known", "tg:stranger"]
    with central.read_core() as connection:
        found = standings(connection, everybody)
    assert found == {
        "tg:owner": Standing(owner=True),
        "tg:admin": Standing(global_admin=True),
        "tg:scoped": Standing(admin_of=frozenset({"a"})),
        "tg:member": Standing(member_of=frozenset({"a", "b"})),
        "tg:known": Standing(),
        "tg:stranger": NOBODY,
    }
