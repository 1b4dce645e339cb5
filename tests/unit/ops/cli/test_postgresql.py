"""The command line on PostgreSQL does what it does on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanotasks import settings as settings_module
from nanotasks.central import database
from nanotasks.central.hosts import Host
from nanotasks.clock import now_ms
from nanotasks.testing import PostgresServer
from tests.unit.ops.cli.command_line import Cli
from tests.unit.ops.cli.conftest import FAMILY


@pytest.mark.postgres
def test_everything_works_on_postgresql(
    fresh_cli: Cli, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    """Arranging, working, looking and deleting, on a database that asks for its schema first."""
    data_dir.mkdir()
    monkeypatch.setenv("NANOTASKS_DATABASE_URL", postgres.create_database())
    settings_module.settings.cache_clear()
    cli = fresh_cli
    refused = cli("groups", "list")
    assert refused.code == 78
    assert "nanotasks db upgrade" in refused.err
    assert cli("db", "upgrade", "--json").json["upgraded"] is True
    assert cli("apply", "-f", "-", input=FAMILY).code == 0
    assert cli("apply", "-f", "-", "--json", input=cli("export").out).json["changes"] == []
    assert cli("chats", "show", "family", "--json").json["chat"] == "file:family"
    assert cli("groups", "show", "nobody").code == 3
    assert cli("roles", "create", "Alice", "owner").code == 0
    assert cli("roles", "create", "Alice", "owner").code == 4
    session = cli("sessions", "create", "andy", "Family", "--json").json["id"]
    delivery = cli("deliveries", "create", session, "--text", "x", "--json").json["id"]
    assert cli("deliveries", "update", delivery, "--state", "discard").code == 0
    assert cli("deliveries", "list", "--state", "dead", "--json").json[0]["group"] == "andy"
    assert cli("sessions", "list", "--group", "andy", "--json").json[0]["id"] == session
    assert cli("status", "--json").json["deliveries"] == {"dead": 1}
    assert cli("db", "check").code == 0
    with database(settings_module.settings()).write() as tx:
        tx.add(Host(id="vm", heartbeat_at=now_ms(), created_at=0))
    assert cli("hosts", "drain", "vm").code == 0
    assert [row["state"] for row in cli("hosts", "list", "--json").json] == ["draining"]
    assert cli("hosts", "show", "vm", "--json").json["held_leases"] == []
    assert cli("hosts", "undrain", "vm", "--json").json["state"] == "up"
    assert "1 delivery" in cli("sessions", "delete", session).err
    assert cli("groups", "delete", "andy").code == 4
    for noun, name in (("groups", "andy"), ("chats", "Family"), ("users", "Alice")):
        assert cli(noun, "delete", name, "--cascade").code == 0
    assert cli("export", "--json").json["groups"] == []
    database(settings_module.settings()).close()
