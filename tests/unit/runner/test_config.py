"""`container.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_runner.config import Config, load
from agent_runner.paths import Workspace


def loaded(tmp_path: Path, content: Any) -> Config:
    path = tmp_path / "container.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return load(str(path))


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null", "[" * 100_000])
def test_an_unreadable_file_gives_the_defaults(tmp_path: Path, content: str) -> None:
    """Reading the configuration never stops a start."""
    assert loaded(tmp_path, content) == Config()


def test_a_missing_file_gives_the_defaults(tmp_path: Path) -> None:
    """The same."""
    assert load(str(tmp_path / "none.json")) == Config()


def test_fields_are_read(tmp_path: Path) -> None:
    """And those of the host are ignored."""
    servers = {"x": {"command": "y", "args": [], "env": {}}}
    config = loaded(
        tmp_path,
        {
            "provider": "Mock",
            "assistantName": "Andy",
            "maxMessagesPerPrompt": 3,
            "mcpServers": servers,
            "model": "m",
            "effort": "high",
            "packages": {"apt": []},
        },
    )
    assert config == Config("mock", "Andy", 3, servers, "m", "high")


@pytest.mark.parametrize("provider", ["auto", "AUTO", "", "  ", None, 5])
def test_without_a_provider_it_is_the_demo(tmp_path: Path, provider: object) -> None:
    """`auto` leaves the choice to the runner."""
    assert loaded(tmp_path, {"provider": provider}).provider == "demo"


@pytest.mark.parametrize("count", [0, None, "7", -1, 2.5, True, [], {}])
def test_a_strange_limit_is_the_default(tmp_path: Path, count: object) -> None:
    """Zero too, as in the original."""
    assert loaded(tmp_path, {"maxMessagesPerPrompt": count}).max_messages == 10


def test_a_wrong_field_spoils_no_other(tmp_path: Path) -> None:
    """Each is checked on its own."""
    assert loaded(tmp_path, {"assistantName": ["x"], "model": "m"}) == Config(model="m")


def test_the_environment_says_where_the_session_is() -> None:
    """Inside a container nothing needs to be said."""
    assert Workspace.from_environment({}) == ("/workspace", "/workspace/agent", "/workspace/agent/container.json")
    moved = Workspace.from_environment({"NANOTASKS_WORKSPACE": "/s/w", "NANOTASKS_AGENT_DIR": "/g/a"})
    assert moved == ("/s/w", "/g/a", "/g/a/container.json")
    assert Workspace.from_environment({"NANOTASKS_CONTAINER_CONFIG": "/c.json"}).config == "/c.json"


def test_extra_folders_are_offered(tmp_path: Path) -> None:
    """Folders only, in order."""
    (tmp_path / "extra" / "b").mkdir(parents=True)
    (tmp_path / "extra" / "a").mkdir()
    (tmp_path / "extra" / "file").touch()
    workspace = Workspace(str(tmp_path), "", "")
    assert workspace.additional_directories() == (str(tmp_path / "extra" / "a"), str(tmp_path / "extra" / "b"))
    assert Workspace(str(tmp_path / "none"), "", "").additional_directories() == ()
