"""`apply` and `export`: the whole arrangement in one file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.migrate import upgrade
from nanotasks.ops.apply import apply
from nanotasks.ops.export import export
from nanotasks.ops.state_file import SECTIONS, parse
from nanotasks.ops.state_yaml import written
from tests.unit.ops.cli.command_line import Cli

HOME = """
groups:
  - name: Andy
    config: {provider: demo, max_messages_per_prompt: 5, skills: [weather]}
  - {folder: bea, name: Bea}
chats:
  - {chat: "file:family", name: Family, is_group: yes, unknown_sender_policy: public}
users:
  - {user: "file:alice", display_name: Alice}
roles:
  - {user: "file:alice", role: owner}
  - {user: "file:alice", role: admin, group: bea}
members:
  - {user: "file:alice", group: andy}
destinations:
  - {group: andy, name: aide, agent: bea}
wirings:
  - {chat: "file:family", group: andy, engage_pattern: .}
  - {chat: "file:family", group: bea, ignored_message_policy: accumulate}
"""


def test_what_a_file_describes_is_made(cli: Cli) -> None:
    """One file makes a whole installation, and a second time changes nothing."""
    first = cli("apply", "-f", "-", "--json", input=HOME).json
    assert [change["action"] for change in first["changes"]] == ["create"] * 10
    assert cli("groups", "show", "andy", "--json").json["config"]["max_messages_per_prompt"] == 5
    assert cli("wirings", "show", "file:family", "andy", "--json").json["engage_mode"] == "pattern"
    assert cli("apply", "-f", "-", "--json", input=HOME).json == {"dry_run": False, "changes": [], "unchanged": 10}


def test_a_dry_run_says_the_same_and_does_nothing(cli: Cli) -> None:
    """The plan is the work, rolled back."""
    planned = cli("apply", "-f", "-", "--dry-run", input=HOME)
    assert planned.out.splitlines()[0] == "+ group andy"
    assert cli("groups", "list", "--json").json == []
    assert cli("apply", "-f", "-", input=HOME).out == planned.out


def test_only_what_is_said_is_changed(cli: Cli) -> None:
    """A field that is left out is not touched; null empties; the change names old and new."""
    cli("apply", "-f", "-", input=HOME)
    text = "groups: [{folder: bea, name: Beatrice}]\nchats: [{chat: 'file:family', name: null}]\n"
    result = cli("apply", "-f", "-", input=text)
    assert result.out == "~ group bea: name Bea → Beatrice\n~ chat file:family: name Family → null\n"
    assert cli("chats", "show", "file:family", "--json").json["is_group"] is True


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_export_is_what_apply_reads(cli: Cli, form: str) -> None:
    """`export | apply -f -` changes nothing, in both forms."""
    cli("apply", "-f", "-", input=HOME)
    exported = cli("export", *(["--json"] if form == "json" else [])).out
    again = cli("apply", "-f", "-", "--json", input=exported).json
    assert again["changes"] == []
    assert list(yaml.safe_load(exported)) == list(SECTIONS)


def test_an_export_rebuilds_the_installation_elsewhere(cli: Cli, tmp_path: Path) -> None:
    """The file means the same in an empty installation: exporting that gives the same file."""
    cli("apply", "-f", "-", input=HOME)
    exported = cli("export").out
    elsewhere = Database(f"sqlite:///{tmp_path / 'other.db'}")
    upgrade(elsewhere)
    with elsewhere.write() as session:
        apply(session, parse(exported))
    with elsewhere.read() as session:
        rebuilt = export(session)
    elsewhere.close()
    assert rebuilt == yaml.safe_load(exported)


def test_an_export_says_nothing_of_hosts(cli: Cli, central_here: Database) -> None:
    """Where an agent lives is this installation's own; on another one it would be an unknown host."""
    cli("groups", "create", "Andy")
    with central_here.write() as session:
        session.add(Host(id="vm", heartbeat_at=0, created_at=0))
        session.flush()
        session.execute(update(AgentGroup).values(host_id="vm"))
    assert "vm" not in cli("export").out


@pytest.mark.parametrize(
    ("text", "line", "path", "hint"),
    [
        ("grups: []", 1, "grups", "Did you mean groups?"),
        ("groups:\n  - {folder: a, nmae: b}", 2, "groups[0].nmae", "Did you mean name?"),
        ("groups:\n  - folder: a\n    config:\n      modle: x", 4, "groups[0].config.modle", "Did you mean model?"),
        ("groups:\n  - folder: a/b", 2, "groups[0].folder", "a-b"),
        ("groups:\n  - {}", 2, "groups[0]", "needs folder"),
        ("groups: {folder: a}", 1, "groups", "must be a list"),
        ("groups:\n  - folder: a\n    config: {packages_apt: ['a b']}", 3, "packages_apt", "no Debian package name"),
        ("groups: [{folder: a}, {folder: a}]", 1, "groups[1]", "second entry for a"),
        ("chats:\n  - chat: family", 2, "chats[0].chat", "file:family"),
        ("chats:\n  - {chat: 'a:b', is_group: perhaps}", 2, "chats[0].is_group", "true or false"),
        ("wirings:\n  - {chat: 'a:b', group: c, engage_mode: patern}", 2, "engage_mode", "Did you mean pattern?"),
        ("wirings:\n  - {chat: 'a:b', group: c, priority: high}", 2, "priority", "whole number"),
        ("destinations:\n  - {group: a, name: A B, agent: c}", 2, "name", "a-b"),
        ("users: [{user: 'a:b', user: 'a:c'}]", 1, "user", "twice"),
        ("a: [", 1, "", ""),
        ("groups: [{folder: a}]\n---\ngroups: []", 1, "", ""),
    ],
)
def test_a_mistake_has_its_line_and_path(cli: Cli, text: str, line: int, path: str, hint: str) -> None:
    """A file with a mistake changes nothing, and says where it is and what was probably meant."""
    result = cli("apply", "-f", "-", "--json", input=text)
    assert result.code == 2
    assert f"line {line}" in result.error["why"] or "line 2" in result.error["why"]
    assert path in result.error["why"]
    assert hint in result.error["why"]


def test_every_mistake_is_told_at_once(cli: Cli) -> None:
    """Nobody mends a file one mistake at a time."""
    result = cli("apply", "-f", "-", "--json", input="grups: []\nchats: [{chat: x}]\nusers: [{user: y}]\n")
    assert len(result.error["why"].splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("members: [{user: 'file:nobody', group: andy}]", "users"),
        ("wirings: [{chat: 'file:famly', group: andy}]", "file:family"),
        ("wirings: [{chat: 'file:family', group: andy, engage_mode: pattern, engage_pattern: '('}]", "character"),
        ("destinations: [{group: andy, name: x}]", "either chat or agent"),
        ("groups: [{folder: carl, host: nowhere}]", "nowhere"),
    ],
)
def test_what_cannot_be_done_undoes_the_rest(cli: Cli, text: str, hint: str) -> None:
    """One transaction: a mistake that only the database shows leaves nothing behind."""
    cli("apply", "-f", "-", input=HOME)
    before = cli("export").out
    result = cli("apply", "-f", "-", input="groups: [{folder: new}]\n" + text if "groups" not in text else text)
    assert result.code == 2
    assert "Line " in result.err
    assert hint in result.err
    assert cli("export").out == before


def test_everything_that_is_not_there_is_told_at_once(cli: Cli) -> None:
    """With its line; what only names an entry that failed is not told again."""
    text = """
groups:
  - {folder: carl, config: {provider: dmeo}}
members:
  - {user: "file:nobody", group: nowhere}
wirings:
  - {chat: "file:attic", group: nowhere}
  - {chat: "file:attic", group: carl}
"""
    result = cli("apply", "-f", "-", "--json", input=text)
    assert result.code == 2
    told = [line.partition(". ")[0] for line in result.error["why"].splitlines()]
    assert told == [
        "line 3, groups[0]: There is no provider 'dmeo'",
        "line 5, members[0]: there is no user file:nobody",
        "line 5, members[0]: there is no agent group nowhere",
        "line 7, wirings[0]: there is no chat file:attic",
        "line 7, wirings[0]: there is no agent group nowhere",
        "line 8, wirings[1]: there is no chat file:attic",
    ]
    assert cli("groups", "list", "--json").json == []


def test_texts_are_taken_as_they_stand(cli: Cli) -> None:
    """What looks like a number, a time or a boolean is a text where a text belongs."""
    text = "users:\n  - {user: 'file:1', display_name: no}\n  - {user: 'file:2', display_name: 007}\n"
    cli("apply", "-f", "-", input=text)
    assert [row["display_name"] for row in cli("users", "list", "--json").json] == ["no", "007"]
    assert cli("apply", "-f", "-", "--json", input=cli("export").out).json["changes"] == []


def test_json_with_tabs_and_escapes_is_read(cli: Cli) -> None:
    """JSON from any tool will do: tabs between, surrogate pairs and escaped slashes within."""
    cli(
        "apply",
        "-f",
        "-",
        input='{\n\t"users": [\n\t\t{"user": "file:a", "display_name": "\\ud83d\\ude00 a\\/b"}\n\t]\n}',
    )
    assert cli("users", "list", "--json").json[0]["display_name"] == "😀 a/b"


def test_an_empty_file_is_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    """Nothing described, nothing done; a file that is not there is exit 3."""
    assert cli("apply", "-f", "-", "--json", input="").json["changes"] == []
    assert cli("apply", "-f", "-", "--json", input="groups:\n").json["changes"] == []
    assert cli("apply", "-f", str(tmp_path / "none.yaml")).code == 3
    assert cli("apply").code == 2


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(lambda text: text.strip())


@settings(max_examples=100, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=4))
def test_any_name_survives_being_written_and_read(names: list[str]) -> None:
    """Quotes, line ends, control and exotic characters in names come back as they were, in each form."""
    state = {"users": [{"user": f"file:{number}", "display_name": name} for number, name in enumerate(names)]}
    for text in (json.dumps(state), json.dumps(state, ensure_ascii=False), written(state)):
        entries = parse(text).sections["users"]
        assert [entry.fields["display_name"] for entry in entries] == names
