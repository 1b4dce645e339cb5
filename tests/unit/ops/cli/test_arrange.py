"""Groups, chats, wirings, users, roles, members and destinations from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.groups import ContainerConfig
from nanotasks.central.hosts import Host
from nanotasks.central.meta import AuditEntry
from tests.unit.ops.cli.command_line import Cli


def test_a_group_gets_a_folder_and_a_configuration(cli: Cli, central_here: Database) -> None:
    """A new agent group can be woken: it has a folder name and a configuration row."""
    first = cli("groups", "create", "Andy the Great", "--provider", "demo", "--json").json
    second = cli("groups", "create", "Andy, the great!", "--json").json
    assert (first["folder"], second["folder"]) == ("andy-the-great", "andy-the-great-2")
    assert first["config"]["provider"] == "demo"
    with central_here.read() as session:
        assert len(session.scalars(select(ContainerConfig)).all()) == 2


@pytest.mark.parametrize(
    ("folder", "code", "hint"),
    [
        ("../up", 2, "up"),
        ("global", 2, "global-2"),
        ("a b", 2, "a-b"),
        ("x" * 65, 2, "cannot be a folder"),
        ("andy", 4, "andy-2"),
    ],
)
def test_a_bad_or_taken_folder_is_refused_with_a_good_one(family: Cli, folder: str, code: int, hint: str) -> None:
    """A folder is checked before anything is made of it."""
    result = family("groups", "create", "Other", "--folder", folder)
    assert result.code == code
    assert hint in result.err
    assert len(family("groups", "list", "--json").json) == 1


def test_a_name_that_makes_no_folder_asks_for_one(cli: Cli) -> None:
    """Every folder that a name makes can be given by hand too, for example in a state file."""
    assert cli("groups", "create", "Global", "--json").json["folder"] == "global-2"
    assert cli("groups", "create", "日本", "--json").json["folder"] == "unnamed"
    assert cli("groups", "create", "long " * 20).code == 2
    assert cli("groups", "create", "long " * 20, "--folder", "long").code == 0
    assert cli("groups", "create", " ").code == 2
    assert cli("apply", "-f", "-", "--json", input=cli("export").out).json["changes"] == []


@pytest.mark.parametrize("reference", ["andy", "Andy", "ANDY"])
def test_a_group_goes_by_folder_name_and_case(family: Cli, reference: str) -> None:
    """People need not type ids."""
    assert family("groups", "show", reference).code == 0


def test_an_id_goes_by_a_beginning_that_fits_one_thing(cli: Cli) -> None:
    """A dashed id works positionally, whole or in part; what fits two things lists them."""
    first = cli("groups", "create", "A", "--json").json["id"]
    cli("groups", "create", "B")
    assert cli("groups", "show", first, "--json").json["folder"] == "a"
    assert cli("groups", "show", first[:-1], "--json").json["folder"] == "a"
    ambiguous = cli("groups", "show", "ag-")
    assert ambiguous.code == 2
    assert first in ambiguous.err


def test_a_name_that_fits_two_groups_lists_them(cli: Cli) -> None:
    """An ambiguous name changes nothing."""
    ids = [cli("groups", "create", "Twin", "--json").json["id"] for _ in range(2)]
    result = cli("groups", "update", "Twin", "--model", "m")
    assert result.code == 2
    assert all(one in result.err for one in ids)


def test_a_field_is_set_and_emptied(family: Cli) -> None:
    """The word none empties a field that may be empty; what is not given stays."""
    config = family(
        "groups", "update", "andy", "--model", "big", "--effort", "high", "--max-messages-per-prompt", "3", "--json"
    ).json["config"]
    assert (config["model"], config["effort"], config["max_messages_per_prompt"]) == ("big", "high", 3)
    config = family("groups", "update", "andy", "--model", "none", "--max-messages-per-prompt", "none", "--json").json[
        "config"
    ]
    assert (config["model"], config["effort"], config["max_messages_per_prompt"]) == (None, "high", None)


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--skills", '["weather"]', None),
        ("--skills", '"some"', "list of names"),
        ("--mcp-servers", '{"clock": {"command": "mcp-clock", "args": ["-v"]}}', None),
        ("--mcp-servers", '{"clock": {}}', "without a command"),
        ("--packages-apt", '["jq"]', None),
        ("--packages-apt", '["jq; rm -rf /"]', "no Debian package name"),
        ("--packages-npm", '["@scope/cowsay"]', None),
        ("--additional-mounts", '[{"hostPath": "/srv", "readonly": false}]', None),
        ("--additional-mounts", '[{"path": "/srv"}]', "without a hostPath"),
        ("--skills", "weather", "is not JSON"),
        ("--max-messages-per-prompt", "0", "from 1"),
    ],
)
def test_a_configuration_is_checked_when_it_is_set(family: Cli, option: str, value: str, word: str | None) -> None:
    """What a build file, a path or a prompt is made of is looked at before it is stored."""
    result = family("groups", "update", "andy", option, value, "--json")
    if word is None:
        field = option.removeprefix("--").replace("-", "_")
        assert result.json["config"][field] == json.loads(value)
    else:
        assert result.code == 2
        assert word in result.err


def test_a_chat_is_registered_once(cli: Cli) -> None:
    """Two chats never share a place, whatever their names are."""
    made = cli("chats", "create", "telegram:group:-100:7", "--is-group", "--name", "Home", "--json").json
    assert (made["channel_type"], made["platform_id"], made["is_group"]) == ("telegram", "group:-100:7", True)
    assert made["unknown_sender_policy"] == "strict"
    assert cli("chats", "create", "telegram:group:-100:7").code == 4
    assert cli("chats", "create", "telegram").code == 2


def test_a_chat_changes_and_can_be_denied(family: Cli) -> None:
    """Booleans are accepted both ways."""
    changed = family("chats", "update", "Family", "--is-group", "--denied", "--name", "none", "--json").json
    assert changed["is_group"] is True
    assert changed["name"] is None
    assert changed["denied_at"].endswith("Z")
    changed = family("chats", "update", "file:family", "--no-is-group", "--no-denied", "--json").json
    assert (changed["is_group"], changed["denied_at"]) == (False, None)


def test_a_wiring_has_the_defaults_that_are_documented(family: Cli) -> None:
    """Mention, everybody, forget, one session per chat, priority 0."""
    family("groups", "create", "Bea")
    row = family("wirings", "create", "file:family", "bea", "--json").json
    assert row | {"id": 0, "chat_id": 0, "group_id": 0, "created_at": 0} == {
        "id": 0,
        "chat": "file:family",
        "chat_id": 0,
        "group": "bea",
        "group_id": 0,
        "engage_mode": "mention",
        "engage_pattern": None,
        "sender_scope": "all",
        "ignored_message_policy": "drop",
        "session_mode": "shared",
        "priority": 0,
        "created_at": 0,
    }


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--engage-mode", "pattern"), "needs a pattern"),
        (("--engage-mode", "pattern", "--engage-pattern", ""), "needs a pattern"),
        (("--engage-mode", "mention", "--engage-pattern", "x"), "means nothing"),
        (("--engage-pattern", "(unclosed"), "At character"),
        (("--engage-pattern", "(?i)x"), "At character"),
    ],
)
def test_a_wiring_that_cannot_engage_is_refused_when_it_is_set(
    family: Cli, options: tuple[str, ...], word: str
) -> None:
    """A pattern is checked at once, with the place of the mistake."""
    family("groups", "create", "Bea")
    result = family("wirings", "create", "file:family", "bea", *options)
    assert result.code == 2
    assert word in result.err
    family("wirings", "create", "file:family", "bea")
    assert family("wirings", "update", "file:family", "bea", *options).code == 2


def test_a_wiring_goes_by_its_chat_and_group(family: Cli) -> None:
    """Nobody needs the id of a wiring; a mode other than pattern forgets the pattern."""
    row = family("wirings", "update", "Family", "andy", "--engage-mode", "mention", "--json").json
    assert (row["engage_mode"], row["engage_pattern"]) == ("mention", None)
    assert family("wirings", "show", row["id"], "--json").json == row
    assert family("wirings", "create", "file:family", "andy").code == 4
    assert family("wirings", "delete", "file:family", "andy").code == 0
    assert family("wirings", "show", "file:family", "andy").code == 3


def test_a_wiring_brings_the_destination(family: Cli) -> None:
    """The agent can answer in the chat under a name made from the chat's; names are kept apart."""
    family("chats", "create", "file:other", "--name", "Family!")
    family("wirings", "create", "file:other", "andy")
    rows = family("destinations", "list", "--group", "andy", "--json").json
    assert [(row["name"], row["target"]) for row in rows] == [("family", "file:family"), ("family-2", "file:other")]


def test_destinations_are_kept_by_hand(family: Cli) -> None:
    """A destination leads to a chat or to an agent, can be renamed and led elsewhere."""
    family("groups", "create", "Bea")
    made = family("destinations", "create", "andy", "helper", "--agent", "bea", "--json").json
    assert (made["type"], made["target"]) == ("agent", "bea")
    assert family("destinations", "create", "andy", "helper", "--agent", "bea").code == 4
    assert family("destinations", "create", "andy", "Big Name", "--agent", "bea").code == 2
    assert family("destinations", "create", "andy", "self", "--agent", "andy").code == 2
    assert family("destinations", "create", "andy", "nowhere").code == 2
    changed = family("destinations", "update", "andy", "helper", "--name", "aide", "--chat", "Family", "--json").json
    assert (changed["name"], changed["type"], changed["target"]) == ("aide", "channel", "file:family")
    assert family("destinations", "show", "andy", "helper").code == 3
    assert family("destinations", "delete", "andy", "aide").code == 0


def test_roles_are_given_changed_and_taken(family: Cli) -> None:
    """A role is one row, by its number or by what it says; an owner is owner of everything."""
    assert family("roles", "create", "file:alice", "owner", "andy").code == 2
    role = family("roles", "create", "file:alice", "admin", "andy", "--json").json
    assert family("roles", "create", "file:alice", "admin", "andy").code == 4
    assert family("roles", "update", str(role["id"]), "--group", "none", "--json").json["group"] is None
    assert family("roles", "create", "Alice", "admin").code == 4
    assert family("roles", "show", "file:alice", "admin", "--json").json["id"] == role["id"]
    assert family("roles", "delete", "file:alice", "admin").code == 0
    assert family("roles", "list", "--json").json == []


def test_members_are_added_changed_and_removed(family: Cli) -> None:
    """A membership goes by user and group."""
    assert family("members", "create", "Alice", "andy", "--json").json["added_by"] is None
    assert family("members", "create", "Alice", "andy").code == 4
    changed = family("members", "update", "file:alice", "andy", "--added-by", "Alice", "--json").json
    assert changed["added_by"] == "file:alice"
    assert family("members", "update", "file:alice", "andy", "--added-by", "none", "--json").json["added_by"] is None
    assert family("users", "show", "Alice", "--json").json["member_of"] == ["andy"]
    assert family("members", "delete", "Alice", "andy").code == 0
    assert family("members", "show", "Alice", "andy").code == 3


def test_users_are_entered_by_channel_and_handle(family: Cli) -> None:
    """A user's id says on which channel they are."""
    assert family("users", "create", "bob").code == 2
    assert family("users", "create", "file:alice").code == 4
    assert family("users", "update", "Alice", "--display-name", "none", "--json").json["display_name"] is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("groups", "delete", "andy"), "nanotasks wirings delete mga-"),
        (("chats", "delete", "Family"), "nanotasks wirings delete mga-"),
        (("users", "delete", "Alice"), "nanotasks roles delete"),
    ],
)
def test_what_depends_is_named_before_it_goes(family: Cli, arguments: tuple[str, ...], named: str) -> None:
    """A delete is refused with the dependants and the command that removes them; --cascade takes them along."""
    family("roles", "create", "Alice", "owner")
    family("members", "create", "Alice", "andy")
    family("sessions", "create", "andy", "Family")
    refused = family(*arguments)
    assert refused.code == 4
    assert "--cascade" in refused.err
    assert named in refused.err or "nanotasks sessions delete sess-" in refused.err
    assert family(*arguments, "--cascade").code == 0
    assert family(arguments[0], "show", arguments[2]).code == 3
    assert family("db", "check").code == 0


def test_what_nothing_depends_on_goes_at_once(cli: Cli) -> None:
    """A group, a chat and a user that nobody uses are deleted without further ado."""
    cli("groups", "create", "Andy")
    cli("chats", "create", "file:x")
    cli("users", "create", "file:y")
    for noun, name in (("groups", "andy"), ("chats", "file:x"), ("users", "file:y")):
        assert cli(noun, "delete", name).code == 0
        assert cli(noun, "list", "--json").json == []


def test_everything_that_is_changed_is_in_the_audit_log(family: Cli, central_here: Database) -> None:
    """Who did what to what is recorded with the change itself; a refused change leaves nothing."""
    family("groups", "update", "andy", "--model", "m")
    family("groups", "update", "andy", "--packages-apt", '["bad name"]')
    family("wirings", "delete", "Family", "andy")
    with central_here.read() as session:
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in entries[-2:]] == ["groups.update", "wirings.delete"]
    assert sorted(entry.action for entry in entries[:-2]) == [
        "chats.create",
        "groups.create",
        "users.create",
        "wirings.create",
    ]
    assert all(entry.actor.startswith("os:") for entry in entries)
    assert json.loads(entries[-2].detail) == {"model": "m"}


def test_a_second_group_of_a_name_says_that_it_was_taken(cli: Cli) -> None:
    """The folder gets a number, and nobody has to wonder why."""
    assert "taken" not in cli("groups", "create", "bob").err
    assert "Made the agent group bob-2. The folder bob was taken." in cli("groups", "create", "bob").err


def test_a_channel_that_nobody_serves_is_said(family: Cli, tmp_path: Path) -> None:
    """The chat is registered, since its channel may be installed later; a slip of the pen is seen at once."""
    made = family("chats", "create", "webhok:home")
    assert made.code == 0
    assert "No channel webhok is installed here" in made.err
    assert "Did you mean webhook?" in made.err
    assert "No channel" not in family("chats", "create", "webhook:home").err
    state = tmp_path / "state.yaml"
    state.write_text("chats: [{chat: 'telegram:1'}, {chat: 'telegram:2'}, {chat: 'file:x'}]")
    assert family("apply", "-f", str(state)).err.count("No channel") == 1
    assert "No channel" not in family("apply", "-f", str(state)).err


def test_a_group_with_sessions_stays_on_its_host(family: Cli, central_here: Database) -> None:
    """Its files are there: a move without them is refused, and says what to do; without sessions it may move."""
    with central_here.write() as session:
        for host_id in ("h1", "h2"):
            session.add(Host(id=host_id, heartbeat_at=1, created_at=1))
    assert family("groups", "update", "andy", "--host", "h1").code == 0
    made = family("sessions", "create", "andy").out.strip()
    refused = family("groups", "update", "andy", "--host", "h2")
    assert refused.code == 4
    assert "Delete its sessions first" in refused.err
    assert family("sessions", "delete", made, "--cascade").code == 0
    assert family("groups", "update", "andy", "--host", "h2").code == 0


def test_folders_beside_the_sessions_are_no_sessions(family: Cli, data_dir: Path) -> None:
    """An agent group keeps its provider's state there; a check of a healthy installation finds nothing."""
    for name in (".claude-shared", ".home"):
        (data_dir / "sessions" / "ag-1" / name).mkdir(parents=True)
    assert family("db", "check").code == 0
