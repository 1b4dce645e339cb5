"""Hosts from the command line: what is there, and keeping new agent groups off one of them."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from nanotasks.central import Database, leases
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.meta import AuditEntry
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import iso, now_ms
from nanotasks.intake.placement import place
from nanotasks.owners import Owner
from tests.unit.ops.cli.command_line import Cli


@pytest.fixture
def two_hosts(family: Cli, central_here: Database) -> Database:
    """The host `a`, where the agent andy lives, and the host `b`; both up."""
    with central_here.write() as session:
        session.add_all(Host(id=name, heartbeat_at=now_ms(), created_at=0) for name in ("a", "b"))
        session.flush()
        session.execute(update(AgentGroup).values(host_id="a", epoch=3))
    return central_here


def state_of(db: Database, host_id: str) -> str:
    with db.read() as session:
        return session.get_one(Host, host_id).state


def test_what_a_host_has_is_counted(family: Cli, two_hosts: Database) -> None:
    """Groups, live instances, leases and the oldest due row are each host's own; ended instances do not count."""
    made = family("sessions", "create", "andy", "Family", "--json").json["id"]
    assert leases.claim(two_hosts, "wake:x", Owner("a", "boot", 1, 1), 3600)
    with two_hosts.write() as session:
        group_id = session.scalars(select(AgentGroup.id)).one()
        session.execute(update(AgentSession).values(next_due_at=5000))
        for name, ended_at in (("old", 2), ("live", None)):
            session.add(
                Instance(
                    id=name, session_id=made, agent_group_id=group_id, host_id="a", runtime="process",
                    epoch=1, started_at=1, ended_at=ended_at,
                )
            )  # fmt: skip
    a, b = family("hosts", "list", "--json").json
    counted = ("id", "state", "silent", "storage", "groups", "live_instances", "leases", "oldest_due_at")
    assert [a[name] for name in counted] == ["a", "up", False, "local", 1, 1, 1, iso(5000)]
    assert [b[name] for name in counted] == ["b", "up", False, "local", 0, 0, 0, None]
    shown = family("hosts", "show", "a", "--json").json
    assert [(one["id"], one["epoch"]) for one in shown["agent_groups"]] == [(group_id, 3)]
    assert [one["id"] for one in shown["instances"]] == ["live"]
    assert [one["name"] for one in shown["held_leases"]] == ["wake:x"]


def test_a_draining_host_gets_no_new_groups_and_keeps_its_own(family: Cli, two_hosts: Database) -> None:
    """`b` is empty and would be chosen; drained it is not. The group that lives on a drained host stays."""
    assert family("hosts", "drain", "b").code == 0
    assert family("groups", "create", "Bo").code == 0
    with two_hosts.write() as session:
        placed = place(session.connection(), list(session.scalars(select(AgentGroup.id))))
    assert set(placed.values()) == {"a"}
    drained = family("hosts", "drain", "a", "--json").json
    assert drained == {
        "id": "a", "groups_moving": 0, "groups_staying": 2, "live_instances": 0, "others_up": [], "dry_run": False,
        "state": "draining",
    }  # fmt: skip
    with two_hosts.read() as session:
        assert set(session.scalars(select(AgentGroup.host_id))) == {"a"}


def test_a_dry_run_changes_nothing(family: Cli, two_hosts: Database) -> None:
    """It says what would be, and leaves neither a state nor an audit row."""
    plan = family("hosts", "drain", "a", "--dry-run", "--json").json
    assert (plan["state"], plan["others_up"]) == ("up", ["b"])
    assert state_of(two_hosts, "a") == "up"
    with two_hosts.read() as session:
        assert not session.scalars(select(AuditEntry).where(AuditEntry.action.like("hosts.%"))).all()


def test_undrain_calls_a_host_up_only_when_it_is_heard(family: Cli, two_hosts: Database) -> None:
    """One that fell silent meanwhile is down until its next heartbeat. Each change has its audit row."""
    for silent, state in ((False, "up"), (True, "down")):
        assert family("hosts", "drain", "a").code == 0
        if silent:
            with two_hosts.write() as session:
                session.execute(update(Host).where(Host.id == "a").values(heartbeat_at=0))
        assert family("hosts", "undrain", "a", "--json").json == {"id": "a", "state": state}
        assert state_of(two_hosts, "a") == state
    with two_hosts.read() as session:
        written = session.scalars(
            select(AuditEntry).where(AuditEntry.action.like("hosts.%")).order_by(AuditEntry.id)
        ).all()
        noted = [(one.action, one.target, json.loads(one.detail)) for one in written]
    drained = ("hosts.drain", "a", {"from": "up", "moved": []})
    assert noted == [
        drained,
        ("hosts.undrain", "a", {"to": "up"}),
        drained,
        ("hosts.undrain", "a", {"to": "down"}),
    ]


def test_what_cannot_be_drained_is_refused(family: Cli, two_hosts: Database) -> None:
    """An unknown host, one that drains already, one that is down, and undraining one that is up."""
    unknown = family("hosts", "drain", "c")
    assert unknown.code == 3
    assert "a, b" in unknown.err
    assert family("hosts", "undrain", "a").code == 4
    assert family("hosts", "drain", "a").code == 0
    assert "undrain" in family("hosts", "drain", "a").err
    with two_hosts.write() as session:
        session.execute(update(Host).where(Host.id == "b").values(state="down"))
    assert family("hosts", "drain", "b").code == 4
    assert state_of(two_hosts, "b") == "down"
