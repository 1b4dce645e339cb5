"""The models, the migrations and the constraints say the same thing, on both databases."""

from __future__ import annotations

import re
import warnings

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable

from nanotasks.central import Base, Database
from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.migrate import require_usable, state, upgrade
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import User, UserRole
from nanotasks.errors import ConfigError

EXPRESSION_INDEX = "uq_user_roles_grant"


def test_migrations_make_the_models(central: Database) -> None:
    """After an upgrade there is no difference between the database and the models."""
    with central.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        with warnings.catch_warnings():
            # SQLite cannot reflect an index on an expression; the next test compares its definition.
            warnings.filterwarnings("ignore", message=f".*{EXPRESSION_INDEX}.*")
            assert compare_metadata(context, Base.metadata) == []


def test_migrations_make_the_constraints(sqlite_central: Database) -> None:
    """CHECKs, partial and expression indexes, which a comparison of metadata overlooks, are the same too."""
    fresh = create_engine("sqlite://")
    Base.metadata.create_all(fresh)
    with fresh.connect() as wanted, sqlite_central.read() as found:
        assert _definitions(found.connection()) == _definitions(wanted)
    fresh.dispose()


def test_upgrade_twice_changes_nothing(central: Database) -> None:
    """A second upgrade finds the schema up to date."""
    assert upgrade(central).up_to_date
    require_usable(central)


def test_an_empty_database_asks_for_the_upgrade(central_url: str) -> None:
    """Using a database without a schema names the command that makes it."""
    database = Database(central_url)
    with pytest.raises(ConfigError, match="nanotasks db upgrade"):
        require_usable(database)
    database.close()


def test_a_newer_schema_is_refused(central: Database) -> None:
    """A revision this release has never heard of is not touched."""
    with central.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert not state(central).known
    with pytest.raises(ConfigError, match="newer release"):
        upgrade(central)


def test_every_identifier_fits_postgresql() -> None:
    """No name is longer than the 63 bytes that PostgreSQL keeps."""
    names = [table.name for table in Base.metadata.tables.values()]
    for table in Base.metadata.tables.values():
        names += [str(constraint.name) for constraint in table.constraints if constraint.name]
        names += [str(index.name) for index in table.indexes]
    assert max(map(len, names)) <= 63


def test_closed_vocabularies_are_enforced(central: Database) -> None:
    """A word outside a column's vocabulary is refused by the database itself."""
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(
            Chat(
                id="mg-1", channel_type="x", platform_id="1", unknown_sender_policy="perhaps", created_at=1, is_group=0
            )
        )


def test_a_global_role_is_granted_once(central: Database) -> None:
    """Two rows of the same global role are refused although their agent group is NULL."""
    with central.write() as session:
        session.add(User(id="x:1", kind="x", created_at=1))
        session.flush()
        session.add(UserRole(user_id="x:1", role="owner", granted_at=1))
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(UserRole(user_id="x:1", role="owner", granted_at=2))


def test_an_owner_is_never_scoped(central: Database) -> None:
    """The owner role with an agent group is refused."""
    with central.write() as session:
        session.add_all(
            [User(id="x:1", kind="x", created_at=1), AgentGroup(id="ag", name="A", folder="a", created_at=1)]
        )
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(UserRole(user_id="x:1", role="owner", agent_group_id="ag", granted_at=1))


def test_one_active_session_per_route(central: Database) -> None:
    """Two active sessions with one route key are refused; a closed one does not count."""
    _group(central)
    with central.write() as session:
        session.add(_session("s1", status="closed"))
        session.add(_session("s2"))
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(_session("s3"))


def test_one_live_instance_per_session(central: Database) -> None:
    """A second instance without an end is refused (promise I5)."""
    _group(central)
    with central.write() as session:
        session.add_all([_session("s1"), Host(id="h", heartbeat_at=1, created_at=1)])
        session.flush()
        session.add(_instance("i1", ended_at=5))
        session.add(_instance("i2"))
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(_instance("i3"))


def test_one_sending_row_per_lane(central: Database) -> None:
    """A lane has at most one row that is being sent (promise I3)."""
    _group(central)
    with central.write() as session:
        session.add(_session("s1"))
        session.flush()
        session.add(_delivery("d1", "sending"))
        session.add(_delivery("d2", "pending"))
    with pytest.raises(IntegrityError), central.write() as session:
        session.execute(text("UPDATE deliveries SET state = 'sending' WHERE id = 'd2'"))


def test_one_event_per_message(central: Database) -> None:
    """The same platform message with the same digest is one event; another digest is another event."""
    with central.write() as session:
        session.add_all([_event("e1", "d1"), _event("e2", "d2")])
    with pytest.raises(IntegrityError), central.write() as session:
        session.add(_event("e3", "d1"))


def test_deleting_what_others_need_is_refused(central: Database) -> None:
    """Foreign keys restrict: a wired chat cannot vanish under its wiring."""
    _group(central)
    with central.write() as session:
        session.add(Chat(id="mg", channel_type="x", platform_id="1", created_at=1))
        session.flush()
        session.add(Wiring(id="w", messaging_group_id="mg", agent_group_id="ag", created_at=1))
    with pytest.raises(IntegrityError), central.write() as session:
        session.execute(text("DELETE FROM messaging_groups"))


def _group(central: Database) -> None:
    with central.write() as session:
        session.add(AgentGroup(id="ag", name="A", folder="a", created_at=1))


def _session(ident: str, status: str = "active") -> AgentSession:
    return AgentSession(id=ident, agent_group_id="ag", route_key="r", status=status, created_at=1)


def _instance(ident: str, ended_at: int | None = None) -> Instance:
    return Instance(
        id=ident,
        session_id="s1",
        agent_group_id="ag",
        host_id="h",
        runtime="process",
        epoch=1,
        started_at=1,
        ended_at=ended_at,
    )


def _delivery(ident: str, state: str) -> Delivery:
    return Delivery(
        id=ident,
        session_id="s1",
        agent_group_id="ag",
        message_out_id=ident,
        seq=1,
        lane="l",
        kind="chat",
        content="{}",
        state=state,
        created_at=1,
    )


def _event(ident: str, digest: str) -> InboundEvent:
    return InboundEvent(
        id=ident,
        channel_type="x",
        platform_id="1",
        platform_message_id="m",
        digest=digest,
        accept_order=1,
        kind="chat",
        timestamp="2026-01-01T00:00:00.000Z",
        content="{}",
        received_at=1,
    )


def _definitions(connection: object) -> set[str]:
    rows = connection.execute(  # type: ignore[attr-defined]
        text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'")
    )
    return {_clause for (sql,) in rows for _clause in _clauses(sql)}


def _clauses(sql: str) -> list[str]:
    flat = re.sub(r"\s+", " ", sql.replace('"', "")).strip()
    if not flat.startswith("CREATE TABLE"):
        return [flat]
    head, *constraints = re.split(r", (?=CONSTRAINT )", flat.removesuffix(")").strip())
    table = head.split("(")[0].strip()
    return [f"{table}: {constraint.strip()}" for constraint in constraints]


def test_every_table_can_be_printed() -> None:
    """The DDL of every table and index compiles (a typo in a partial index would show here)."""
    for table in Base.metadata.sorted_tables:
        assert str(CreateTable(table))
        for index in table.indexes:
            assert str(CreateIndex(index))


def test_tables_of_the_original_are_all_there(central: Database) -> None:
    """Every table of NanoClaw 2's central database has its counterpart (drops replaces unregistered_senders)."""
    wanted = (
        "agent_groups messaging_groups messaging_group_agents users user_roles agent_group_members user_dms sessions "
        "pending_questions pending_approvals pending_sender_approvals pending_channel_approvals agent_destinations "
        "drops container_configs chat_sdk_kv chat_sdk_subscriptions chat_sdk_locks chat_sdk_lists"
    )
    with central.read() as session:
        assert set(wanted.split()) <= set(inspect(session.connection()).get_table_names())
