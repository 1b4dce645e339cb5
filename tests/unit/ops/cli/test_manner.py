"""The manners of the command line: forms, streams, exit codes, suggestions."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanotasks import settings as settings_module
from nanotasks.ops.cli.output import plain, relative
from nanotasks.ops.cli.root import CATALOGUE, Root
from tests.unit.ops.cli.command_line import Cli

NOUNS = ("groups", "chats", "wirings", "users", "roles", "members", "destinations", "sessions", "deliveries")
VERBS = ("list", "show", "create", "update", "delete")


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nanotasks", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def test_help_names_every_command(fresh_cli: Cli) -> None:
    """`nanotasks` alone prints the help, on stdout, with every command."""
    result = fresh_cli()
    assert result.code == 0
    assert all(entry.name in result.out for entry in CATALOGUE)
    assert fresh_cli("--help").out == result.out == fresh_cli("-h").out


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_every_command_explains_itself(fresh_cli: Cli, entry: object) -> None:
    """The catalogue promises nothing that its module does not bring."""
    assert isinstance(entry, type(CATALOGUE[0]))
    result = fresh_cli(entry.name, "--help")
    assert result.code == 0, result.err
    assert result.out.startswith(f"Usage: nanotasks {entry.name}")
    assert "--json" in result.out


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_every_verb(fresh_cli: Cli, noun: str) -> None:
    """list, show, create, update and delete are there for every noun, with a sentence of help."""
    for verb in VERBS:
        result = fresh_cli(noun, verb, "--help")
        assert result.code == 0, result.err
        assert re.search(r"\n\n  [A-Z].*\.", result.out, re.DOTALL)


def test_help_is_quick() -> None:
    """Asking for help loads no database, no Celery and no Docker."""
    probe = (
        "import sys\n"
        "from nanotasks.ops.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'sqlalchemy', 'celery', 'docker', 'alembic', 'redis', 'fastapi', 'yaml', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("words", [["task", "list"], ["run", "list"]])
def test_a_list_of_tasks_is_quick(tmp_path: Path, words: list[str]) -> None:
    """It may have ten thousand lines: neither the database's nor the options' machinery may take its time."""
    made = run("db", "upgrade", environment=at(tmp_path))
    assert made.returncode == 0, made.stderr
    probe = (
        "import sys\n"
        "from nanotasks.ops.cli import main\n"
        f"try:\n    main({words})\nexcept SystemExit as left:\n    assert not left.code\n"
        "heavy = {'sqlalchemy', 'celery', 'alembic', 'redis', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False, env={**os.environ, **at(tmp_path)}
    )
    assert done.returncode == 0, done.stderr


def at(directory: Path) -> dict[str, str]:
    return {"NANOTASKS_DATA_DIR": str(directory / "data")}


@pytest.mark.parametrize("noun", NOUNS)
def test_help_of_a_noun_loads_no_database(noun: str) -> None:
    """The arguments of a command can be shown and completed without opening anything."""
    probe = (
        "import sys\n"
        "from nanotasks.ops.cli import main\n"
        f"try:\n    main(['{noun}', 'create', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'sqlalchemy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "groups", "list"),
        ("groups", "--json", "list"),
        ("groups", "list", "--json"),
    ],
)
def test_json_is_understood_anywhere(cli: Cli, arguments: tuple[str, ...]) -> None:
    """`--json` may stand before and after the noun and the verb; an empty list is an empty array."""
    result = cli(*arguments)
    assert (result.code, result.json, result.err) == (0, [], "")


def test_after_two_dashes_json_is_a_value(cli: Cli) -> None:
    """What stands after `--` is never an option."""
    assert cli("groups", "create", "--", "--json").code == 0
    assert cli("groups", "list", "--json").json[0]["name"] == "--json"


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("grups", "list"), 2, "Did you mean groups?"),
        (("groups", "lst"), 2, "Did you mean list?"),
        (("groups", "list", "--jsn"), 2, "Did you mean --json?"),
        (("wirings", "create", "--chat", "x"), 2, "Usage: nanotasks wirings create [OPTIONS] CHAT GROUP"),
        (("chat", "hello"), 69, "Start everything with `nanotasks up` in another terminal"),
        (("wirings", "create", "a", "b", "--engage-mod", "mention"), 2, "Did you mean --engage-mode?"),
        (("wirings", "create", "a", "b", "--engage-mode", "mentoin"), 2, "Did you mean mention?"),
        (("wirings", "create", "a", "b", "--engage-mode", "mention_sticky"), 2, "Did you mean mention-sticky?"),
        (("wirings", "create", "a"), 2, "Missing argument"),
        (("groups",), 2, "list, show, create, update, delete"),
        (("groups", "show", "nobody"), 3, "There is no agent group"),
        (("groups", "update", "nobody"), 2, "nothing to change"),
        (("groups", "create", "--name", "X"), 2, "nanotasks groups create [OPTIONS] NAME"),
        (("groups", "create", "\udcff"), 2, "UTF-8"),
        (("groups", "list", "more"), 2, "unexpected extra argument"),
        (("deliveries", "list", "--limit", "-1"), 2, "--limit"),
    ],
)
def test_a_mistake_gets_its_code_and_a_way_out(cli: Cli, arguments: tuple[str, ...], code: int, word: str) -> None:
    """Usage is 2, not found is 3; the nearest known word is suggested; stdout stays empty."""
    result = cli(*arguments)
    assert (result.code, result.out) == (code, "")
    assert word in result.err
    told = cli(*arguments, "--json")
    assert told.code == code
    assert set(told.error) == {"code", "what", "why", "fix"}


def test_a_database_that_does_not_answer_is_69() -> None:
    """A dependency that is down has its own exit code."""
    done = run(
        "groups", "list", "--json", environment={"NANOTASKS_DATABASE_URL": "postgresql://n:secret@127.0.0.1:1/none"}
    )
    assert done.returncode == 69
    assert '"code": "dependency_down"' in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/name"])
def test_a_database_that_cannot_be_is_78(cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What is no database, or not one of ours, is a configuration error that does not show the URL's password."""
    monkeypatch.setenv("NANOTASKS_DATABASE_URL", url)
    settings_module.settings.cache_clear()
    result = cli("groups", "list")
    assert result.code == 78
    assert "NANOTASKS_DATABASE_URL" in result.err


def test_docker_that_does_not_answer_is_69(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dependency that is down says so, whichever it is."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert cli("image", "show").code == 69


def test_a_defect_is_told_in_one_breath(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is exit code 1 with its place, not a page of frames."""

    def fail() -> None:
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr("nanotasks.settings.describe", fail)
    monkeypatch.setattr("nanotasks.ops.cli.settings.describe", fail)
    result = cli("settings")
    assert result.code == 1
    assert result.err.startswith("error: RuntimeError: boom\n")
    assert "Traceback" not in result.err
    assert cli("settings", "--json").error["code"] == "internal"


def test_closed_and_narrow_streams_are_no_error(tmp_path: Path) -> None:
    """Output that nobody reads is dropped, and no character is a reason to fail."""
    environment = {**os.environ, "NANOTASKS_DATA_DIR": str(tmp_path), "PYTHONIOENCODING": "ascii"}
    script = f"{sys.executable} -m nanotasks groups create Zoë && {sys.executable} -m nanotasks groups list"
    done = subprocess.run(
        ["bash", "-c", f"{script} && {script} >&-"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_bad_setting_is_78(tmp_path: Path) -> None:
    """A configuration that cannot be used has its own exit code."""
    done = run("groups", "list", environment={"NANOTASKS_DATA_DIR": str(tmp_path), "NANOTASKS_RUNTIME": "dokcer"})
    assert done.returncode == 78
    assert "Did you mean docker?" in done.stderr


def test_a_data_directory_that_cannot_be_made_is_78(tmp_path: Path) -> None:
    """A file where the data directory should be is named, with the setting to change."""
    (tmp_path / "file").write_text("")
    done = run("groups", "list", environment={"NANOTASKS_DATA_DIR": str(tmp_path / "file" / "data")})
    assert done.returncode == 78
    assert "NANOTASKS_DATA_DIR" in done.stderr


def test_a_file_that_is_no_database_is_78(fresh_cli: Cli, data_dir: Path) -> None:
    """A damaged central database is said to be one, without a traceback."""
    data_dir.mkdir()
    (data_dir / "central.db").write_bytes(b"not a database " * 100)
    result = fresh_cli("groups", "list")
    assert result.code == 78
    assert "Traceback" not in result.err


def test_the_first_command_makes_the_database(fresh_cli: Cli, data_dir: Path) -> None:
    """Groups can be arranged before anything was started; that the database is new is said, on stderr."""
    result = fresh_cli("groups", "list", "--json")
    assert (result.code, result.json, result.err) == (0, [], "")
    assert (data_dir / "central.db").exists()


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`nanotasks … | head` ends without a traceback."""
    done = subprocess.run(
        f"{sys.executable} -m nanotasks settings --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NANOTASKS_DATA_DIR": str(tmp_path)},
    )
    assert done.stderr == ""


def test_lines_for_programs_and_a_table_for_people(family: Cli, data_dir: Path) -> None:
    """Without a terminal there are tab-separated fields under their names; on one, headings and relative times."""
    lines = family("groups", "list").out.splitlines()
    assert lines[0].split("\t")[:2] == ["folder", "name"]
    assert lines[1].split("\t")[:2] == ["andy", "Andy"]
    shown = on_a_terminal("groups", "list", data_dir=data_dir)
    assert "FOLDER" in shown
    assert " ago" in shown


def on_a_terminal(*arguments: str, data_dir: Path) -> str:
    master, slave = pty.openpty()
    environment = {**os.environ, "NANOTASKS_DATA_DIR": str(data_dir), "COLUMNS": "200", "TERM": "dumb"}
    process = subprocess.Popen(
        [sys.executable, "-m", "nanotasks", *arguments], stdout=slave, stdin=slave, env=environment, close_fds=True
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert process.wait(20) == 0
    return shown.decode()


def test_words_go_to_stderr_and_the_id_to_stdout(cli: Cli) -> None:
    """What a change made can be kept in a variable of a script."""
    made = cli("groups", "create", "Andy")
    assert re.fullmatch(r"ag-\d+-[a-z0-9]{6}\n", made.out)
    assert "andy" in made.err
    assert cli("groups", "show", made.out.strip(), "--json").json["folder"] == "andy"


def test_names_cannot_drive_the_terminal(cli: Cli) -> None:
    """Control characters in a stranger's name are shown, not obeyed, and stay exact in JSON."""
    evil = "x\x1b[2Jy\tz"
    assert cli("users", "create", "file:evil", "--display-name", evil).code == 0
    assert r"x\x1b[2Jy\tz" in cli("users", "list").out
    assert cli("users", "list", "--json").json[0]["display_name"] == evil


def test_times_are_rfc_3339(family: Cli) -> None:
    """An instant in JSON is UTC with milliseconds and a Z."""
    created = family("groups", "list", "--json").json[0]["created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created)


@pytest.mark.parametrize(
    ("distance_s", "text"),
    [
        (0, "0 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (86_400, "1 d ago"),
        (31 * 86_400, "2026-"),
        (-90, "in 1 min"),
    ],
)
def test_relative_times(distance_s: int, text: str) -> None:
    """A person reads the distance in the largest unit that fits; far away, the date."""
    now = 1_795_000_000_000
    assert relative(now - distance_s * 1000, now).startswith(text)


def test_plain_keeps_what_people_write() -> None:
    """Letters of any script and joined emoji are left alone."""
    assert plain("Jörg 日本 👩‍👩‍👧") == "Jörg 日本 👩‍👩‍👧"


def test_singular_nouns_are_understood(family: Cli) -> None:
    """`nanotasks group list` is `nanotasks groups list`; only `chat` is something else."""
    assert family("group", "list").out == family("groups", "list").out
    aliases = {entry.alias for entry in CATALOGUE if entry.alias}
    places = {"group", "wiring", "user", "role", "member", "destination"}
    assert aliases == places | {"session", "delivery", "task", "run", "host", "retry"}


def test_completion_knows_commands_options_and_words(tmp_path: Path) -> None:
    """A shell completes commands, options and the words of an option."""
    for words, wanted in (
        ("nanotasks wir", "wirings"),
        ("nanotasks wirings create --eng", "--engage-mode"),
        ("nanotasks wirings create a b --engage-mode men", "mention-sticky"),
    ):
        environment = {
            "_NANOTASKS_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "NANOTASKS_DATA_DIR": str(tmp_path),
        }
        assert wanted in run(environment=environment).stdout.split(), words


def test_the_root_offers_what_the_catalogue_lists() -> None:
    """No command can be reached that the help does not name, but for the hidden singulars."""
    assert Root(name="nanotasks").list_commands(None) == [entry.name for entry in CATALOGUE]
