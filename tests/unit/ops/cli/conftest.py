"""A command line on a data directory of its own, run in this process."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks import settings as settings_module
from nanotasks.central import Database, database
from nanotasks.ops.cli import main
from tests.unit.ops.cli.command_line import Cli, Result

FAMILY = """
groups: [{name: Andy}]
chats: [{chat: "file:family", name: Family}]
wirings: [{chat: "file:family", group: andy, engage_pattern: .}]
users: [{user: "file:alice", display_name: Alice}]
"""


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data directories to copy, since making a schema takes longer than most tests: `empty` and `family`."""
    folder = tmp_path_factory.mktemp("templates")
    for name, state in (("empty", ""), ("family", FAMILY)):
        subprocess.run(
            [sys.executable, "-m", "nanotasks", "apply", "-f", "-"],
            input=state,
            text=True,
            check=True,
            capture_output=True,
            env={**os.environ, "NANOTASKS_DATA_DIR": str(folder / name)},
        )
    return folder


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a data directory that is not there yet; the settings of this process point at it."""
    folder = tmp_path / "data"
    monkeypatch.setenv("NANOTASKS_DATA_DIR", str(folder))
    monkeypatch.setenv("NANOTASKS_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("NANOTASKS_HOST_ID", "here")
    settings_module.settings.cache_clear()
    yield folder
    monkeypatch.delenv("NANOTASKS_DATABASE_URL", raising=False)
    settings_module.settings.cache_clear()
    if folder.exists():
        database(settings_module.settings()).close()
    settings_module.settings.cache_clear()


@pytest.fixture
def fresh_cli(data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line where nothing was installed; `input` is its standard input."""

    def run(*arguments: str, input: str | None = None) -> Result:
        if input is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, printed.out, printed.err)

    return run


@pytest.fixture
def cli(fresh_cli: Cli, data_dir: Path, templates: Path) -> Cli:
    """A command line on an empty installation."""
    shutil.copytree(templates / "empty", data_dir)
    return fresh_cli


@pytest.fixture
def family(fresh_cli: Cli, data_dir: Path, templates: Path) -> Cli:
    """A command line on an installation with an agent `andy` wired to the chat `file:family`, and a user."""
    shutil.copytree(templates / "family", data_dir)
    return fresh_cli


@pytest.fixture
def central_here(data_dir: Path) -> Database:
    """The central database of the command line; ask for it after `cli` or `family`."""
    return database(settings_module.settings())
