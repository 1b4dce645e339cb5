"""Which host a machine is: the one it was before it got another name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.ops.host_identity import host_id_here, stranded
from nanotasks.settings import Settings, machine_name


def know(db: Database, *names: str) -> None:
    with db.write() as session:
        session.add_all(Host(id=name, heartbeat_at=0, created_at=0) for name in names)


@pytest.mark.parametrize(
    ("known", "configured", "used"),
    [
        ((), None, None),  # the first start
        (("laptop",), None, "laptop"),  # renamed since
        (("laptop",), "chosen", "chosen"),  # somebody wants another id
        (("laptop", "desktop"), None, None),  # nobody can say which of them this is
    ],
)
def test_a_renamed_machine_keeps_its_id(
    sqlite_central: Database, known: tuple[str, ...], configured: str | None, used: str | None
) -> None:
    """A database that belongs to one machine knows what it was called before."""
    know(sqlite_central, *known)
    settings = Settings(host_id=configured) if configured else Settings()
    assert host_id_here(sqlite_central, settings) == (used or machine_name())


@pytest.mark.postgres
def test_a_shared_database_says_nothing_about_this_machine(central: Database) -> None:
    """On PostgreSQL the only known host may be another machine."""
    know(central, "laptop")
    expected = machine_name() if central.dialect == "postgresql" else "laptop"
    assert host_id_here(central, Settings()) == expected


def test_agents_that_nobody_answers_for_are_told_of(sqlite_central: Database, tmp_path: Path) -> None:
    """Their files are here, but they belong to the id that this host had before."""
    know(sqlite_central, "vm")
    with sqlite_central.write() as session:
        session.add(AgentGroup(id="ag-1", name="Andy", folder="andy", host_id="vm", created_at=0))
    assert stranded(sqlite_central, Settings(host_id="renamed", data_dir=tmp_path)) is None
    (tmp_path / "sessions" / "ag-1").mkdir(parents=True)
    told = stranded(sqlite_central, Settings(host_id="renamed", data_dir=tmp_path))
    assert told is not None and "andy" in told and "NANOTASKS_HOST_ID=vm" in told
    assert stranded(sqlite_central, Settings(host_id="vm", data_dir=tmp_path)) is None


def test_the_folders_say_which_of_several_hosts_this_is(sqlite_central: Database, tmp_path: Path) -> None:
    """The machine ran under its new name once, so both are known; its sessions were made under the old one."""
    know(sqlite_central, "before", machine_name())
    with sqlite_central.write() as session:
        session.add(AgentGroup(id="ag-1", name="Andy", folder="andy", host_id="before", created_at=0))
        session.flush()
        session.add(AgentSession(id="sess-1", agent_group_id="ag-1", route_key="x", created_at=0))
    here = Settings(data_dir=tmp_path)
    assert host_id_here(sqlite_central, here) == machine_name()
    (tmp_path / "sessions" / "ag-1" / "sess-1").mkdir(parents=True)
    assert host_id_here(sqlite_central, here) == "before"
