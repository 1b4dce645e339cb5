"""Sessions, deliveries, status, settings and the database from the command line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import select, update

from nanotasks.central import Database
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.session.layout import SessionFolder
from tests.unit.ops.cli.command_line import Cli


@pytest.fixture
def session_id(family: Cli) -> str:
    """A session of andy in the family chat."""
    made: str = family("sessions", "create", "andy", "file:family", "--json").json["id"]
    return made


def test_a_session_is_one_per_place(family: Cli, session_id: str) -> None:
    """A session made by hand is the one that routing would find; a closed one makes room for another."""
    assert family("sessions", "create", "andy", "Family").code == 4
    assert family("sessions", "update", session_id, "--status", "closed").code == 0
    second = family("sessions", "create", "andy", "Family", "--json").json["id"]
    refused = family("sessions", "update", session_id, "--status", "active")
    assert refused.code == 4
    assert second in refused.err
    assert [row["id"] for row in family("sessions", "list", "--status", "active", "--json").json] == [second]


def test_a_thread_has_its_own_session(family: Cli, session_id: str) -> None:
    """In the mode per-thread a thread is a place of its own."""
    made = family("sessions", "create", "andy", "Family", "--thread", "t1", "--session-mode", "per-thread", "--json")
    assert made.json["thread"] == "t1"
    assert made.json["id"] != session_id


def test_deleting_a_session_takes_its_folder(family: Cli, session_id: str, data_dir: Path) -> None:
    """Rows and files go together, and nothing outside the folder."""
    folder = Path(family("sessions", "show", session_id, "--json").json["folder"])
    SessionFolder(folder).create()
    outside = data_dir / "outside"
    outside.write_text("stays")
    (folder / "workspace" / "link").symlink_to(outside)
    assert family("sessions", "delete", session_id).code == 0
    assert not folder.exists()
    assert outside.read_text() == "stays"


def test_a_session_whose_agent_runs_stays(family: Cli, session_id: str, central_here: Database) -> None:
    """Nobody pulls the files away from under a live agent."""
    with central_here.write() as session:
        session.add(Host(id="here", heartbeat_at=now_ms(), created_at=now_ms()))
        session.flush()
        group = family("groups", "show", "andy", "--json").json["id"]
        session.add(
            Instance(
                id="inst-1",
                session_id=session_id,
                agent_group_id=group,
                host_id="here",
                runtime="process",
                epoch=1,
                started_at=now_ms(),
            )
        )
    result = family("sessions", "delete", session_id, "--cascade")
    assert result.code == 4
    assert "running" in result.err
    assert family("status", "--json").json["running_agents"] == 1


def test_an_operator_speaks_in_a_chat(family: Cli, session_id: str) -> None:
    """A message by hand is a delivery like an agent's."""
    made = family("deliveries", "create", session_id, "--text", "Back at noon.", "--json").json
    assert (made["state"], made["to"]) == ("pending", "file:family")
    shown = family("deliveries", "show", made["id"], "--json").json
    assert shown["content"] == {"text": "Back at noon."}
    assert shown["tries"] == []
    assert family("deliveries", "create", session_id, "--text", " ").code == 2
    lonely = family("sessions", "create", "andy", "--json").json["id"]
    assert family("deliveries", "create", lonely, "--text", "hello?").code == 2


def test_a_delivery_is_given_up_tried_again_and_forgotten(family: Cli, session_id: str, central_here: Database) -> None:
    """discard ends it, retry begins anew with a fresh horizon, delete forgets a finished one."""
    delivery = family("deliveries", "create", session_id, "--text", "x", "--json").json["id"]
    assert family("deliveries", "update", delivery, "--state", "retry").code == 4
    assert family("deliveries", "delete", delivery).code == 4
    assert family("deliveries", "update", delivery, "--state", "discard", "--json").json["state"] == "dead"
    with central_here.write() as session:
        session.execute(update(Delivery).values(attempts=3, first_attempt_at=1))
    again = family("deliveries", "update", delivery, "--state", "retry", "--json").json
    assert (again["state"], again["attempts"], again["finished_at"]) == ("retrying", 3, None)
    with central_here.read() as session:
        assert session.scalars(select(Delivery.first_attempt_at)).one() is None
    family("deliveries", "update", delivery, "--state", "discard")
    assert family("deliveries", "delete", delivery).code == 0
    assert family("deliveries", "list", "--json").json == []


def test_deliveries_are_narrowed(family: Cli, session_id: str, central_here: Database) -> None:
    """By several states, by class, and by when they were entered."""
    ids = [
        family("deliveries", "create", session_id, "--text", "x", "--json").json["id"]
        for _ in ("retrying", "dead", "held")
    ]
    with central_here.write() as session:
        for delivery, state in zip(ids, ("retrying", "dead", "held"), strict=True):
            values = {"state": state, "error_class": "permanent" if state == "dead" else "transient"}
            session.execute(update(Delivery).where(Delivery.id == delivery).values(**values))

    def listed(*options: str) -> set[str]:
        return {row["state"] for row in family("deliveries", "list", *options, "--json").json}

    assert listed("--state", "retrying", "--state", "dead") == {"retrying", "dead"}
    assert listed("--class", "permanent") == {"dead"}
    assert listed("--since", "1h") == {"retrying", "dead", "held"}
    assert listed("--until", "1h") == set()


def test_sessions_in_trouble(family: Cli, session_id: str, central_here: Database) -> None:
    """Those whose file or agent has an error."""
    assert family("sessions", "list", "--troubled", "--json").json == []
    with central_here.write() as session:
        session.execute(update(AgentSession).values(wake_error="no such image"))
    assert [row["id"] for row in family("sessions", "list", "--troubled", "--json").json] == [session_id]


@pytest.mark.parametrize(
    ("state", "verb", "code"),
    [
        ("sending", "retry", 4),
        ("sending", "discard", 4),
        ("delivered", "retry", 4),
        ("delivered", "discard", 4),
        ("held", "retry", 0),
        ("held", "discard", 0),
        ("parked", "retry", 0),
        ("retrying", "discard", 0),
        ("dead", "retry", 0),
        ("dead", "discard", 4),
    ],
)
def test_which_deliveries_an_operator_may_move(
    family: Cli, session_id: str, central_here: Database, state: str, verb: str, code: int
) -> None:
    """What is being sent or has arrived is left alone."""
    delivery = family("deliveries", "create", session_id, "--text", "x", "--json").json["id"]
    with central_here.write() as session:
        session.execute(update(Delivery).values(state=state))
    assert family("deliveries", "update", delivery, "--state", verb).code == code


def test_every_try_is_shown(family: Cli, session_id: str, central_here: Database) -> None:
    """An operator sees what happened at each attempt."""
    delivery = family("deliveries", "create", session_id, "--text", "x", "--json").json["id"]
    with central_here.write() as session:
        session.add(
            DeliveryAttempt(
                delivery_id=delivery, number=1, started_at=1, outcome="transient", error_text="503", worker="w@here"
            )
        )
    tries = family("deliveries", "show", delivery, "--json").json["tries"]
    assert [(one["number"], one["outcome"], one["error_text"]) for one in tries] == [(1, "transient", "503")]


def test_a_long_list_says_that_there_is_more(family: Cli, session_id: str) -> None:
    """A list is cut at its limit, aloud."""
    for number in range(3):
        family("deliveries", "create", session_id, "--text", str(number))
    cut = family("deliveries", "list", "--limit", "2")
    assert len(cut.out.splitlines()) == 3
    assert "--limit 0" in cut.err
    assert len(family("deliveries", "list", "--limit", "0", "--json").json) == 3
    assert family("deliveries", "list", "--limit", "3").err == ""


def test_a_program_gets_every_row(family: Cli, session_id: str, central_here: Database) -> None:
    """A list is cut for people only: elsewhere nothing is left out unless it was asked for."""
    group = family("groups", "show", "andy", "--json").json["id"]
    with central_here.write() as session:
        session.add_all(
            Delivery(
                id=f"dlv-{number}",
                session_id=session_id,
                agent_group_id=group,
                message_out_id=str(number),
                seq=number,
                lane="x",
                kind="chat",
                content="{}",
                created_at=number,
            )
            for number in range(150)
        )
    assert len(family("deliveries", "list", "--json").json) == 150
    assert len(family("deliveries", "list").out.splitlines()) == 151
    assert [row["seq"] for row in family("deliveries", "list", "--json", "--limit", "2").json] == [149, 148]


def test_status_of_nothing_names_the_first_step(fresh_cli: Cli, data_dir: Path) -> None:
    """Without an installation there is nothing to show, and nothing is made."""
    result = fresh_cli("status")
    assert result.code == 78
    assert "nanotasks up" in result.err
    assert not data_dir.exists()


def test_status_shows_the_whole_installation(family: Cli, session_id: str, central_here: Database) -> None:
    """One object holds schema, hosts, queues, sessions, events and deliveries; without Redis it still answers."""
    family("deliveries", "create", session_id, "--text", "x")
    with central_here.write() as session:
        session.add(Host(id="here", heartbeat_at=now_ms(), created_at=now_ms()))
        session.add(Host(id="gone", heartbeat_at=now_ms() - 3_600_000, created_at=now_ms()))
    result = family("status", "--json")
    assert result.code == 0
    found = result.json
    assert found["database"]["up_to_date"] is True
    assert {host["id"]: host["state"] for host in found["hosts"]} == {"gone": "silent", "here": "up"}
    assert found["sessions"] == {"active": 1}
    assert found["deliveries"] == {"pending": 1}
    assert found["redis"] == {"answers": False, "queues": {}}
    assert found["oldest"]["open_delivery_at"] is not None
    assert "1 pending" in family("status").out


def test_settings_are_listed_without_their_secrets(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting has its value; a secret is only said to be set."""
    from nanotasks import settings as settings_module

    monkeypatch.setenv("NANOTASKS_WEBHOOK_SECRET", "hush")
    settings_module.settings.cache_clear()
    result = cli("settings", "--json")
    rows = {row["env"]: row for row in result.json}
    assert rows["NANOTASKS_WEBHOOK_SECRET"]["value"] == "***"
    assert rows["NANOTASKS_HOST_ID"]["value"] == "here"
    assert "hush" not in result.out + cli("settings").out
    assert {row["env"] for row in cli("settings", "flower", "port", "--json").json} == {"NANOTASKS_FLOWER_PORT"}


def test_the_schema_is_upgraded_and_shown(fresh_cli: Cli) -> None:
    """upgrade makes the schema and may be repeated; status says what there is."""
    before = fresh_cli("db", "status", "--json").json
    assert (before["schema"], before["up_to_date"]) == (None, False)
    assert fresh_cli("db", "upgrade", "--json").json["upgraded"] is True
    assert fresh_cli("db", "upgrade", "--json").json["upgraded"] is False
    assert fresh_cli("db", "status", "--json").json["up_to_date"] is True


def test_a_newer_schema_is_refused(cli: Cli, data_dir: Path) -> None:
    """A data directory of a later release is left alone."""
    cli("db", "upgrade")
    with sqlite3.connect(data_dir / "central.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for arguments in (("groups", "list"), ("db", "upgrade"), ("status",)):
        result = cli(*arguments)
        assert result.code == 78
        assert "newer release" in result.err


def test_a_damaged_session_file_is_found(family: Cli, session_id: str) -> None:
    """check names the file and exits 1."""
    folder = SessionFolder(Path(family("sessions", "show", session_id, "--json").json["folder"]))
    folder.create()
    assert family("db", "check").code == 0
    folder.inbound_db.write_bytes(b"broken" * 1000)
    result = family("db", "check", "--json")
    assert result.code == 1
    assert any(row["file"] == str(folder.inbound_db) and row["result"] != "ok" for row in result.json)


def test_replay_accepts_lines_and_names_the_bad_ones(family: Cli, tmp_path: Path) -> None:
    """Each message is accepted once; a bad line has its number and makes the exit code 1."""
    file = tmp_path / "messages.jsonl"
    good = '{"id": "1", "platform_id": "family", "text": "hello", "sender_id": "alice"}\n'
    file.write_text(good)
    first = family("intake", "replay", str(file), "--json").json
    assert (first["accepted"], first["duplicates"]) == (1, 0)
    file.write_text(good + "nonsense\n")
    second = family("intake", "replay", str(file), "--json")
    assert second.code == 1
    assert (second.json["accepted"], second.json["duplicates"], second.json["failed"]) == (0, 1, 1)
    assert second.json["problems"][0]["line"] == 2
    assert family("intake", "replay", str(tmp_path / "none")).code == 3
    assert family("status", "--json").json["events"] == {"pending": 1}


def test_a_message_that_was_not_answered_is_listed_and_asked_again(
    family: Cli, session_id: str, central_here: Database
) -> None:
    """Its event was routed, and its end stands on its route: dead, with the reason."""
    with central_here.write() as session:
        agent_session = session.get_one(AgentSession, session_id)
        session.add(
            InboundEvent(
                id="ev-1",
                channel_type="file",
                platform_id="family",
                platform_message_id="m1",
                digest="",
                accept_order=1,
                kind="chat",
                timestamp="",
                content='{"text":"hello"}',
                received_at=1,
                state="routed",
            )
        )
        session.flush()
        session.add(
            InboundRoute(
                event_id="ev-1",
                session_id=session_id,
                agent_group_id=agent_session.agent_group_id,
                trigger=1,
                inbound_id="m1:andy",
                state="dead",
                error="the agent ended 5 times while it worked on it",
                created_at=1,
            )
        )
    (listed,) = family("intake", "list", "--state", "dead", "--json").json
    assert listed["id"] == "ev-1"
    assert "ended 5 times" in family("intake", "show", "ev-1").out
    assert "given to 1 of its agents again" in family("intake", "retry", "ev-1").err
    (route,) = family("intake", "show", "ev-1", "--json").json["routes"]
    assert (route["state"], route["error"]) == ("pending", None)
    assert family("intake", "retry", "ev-1").code == 4
