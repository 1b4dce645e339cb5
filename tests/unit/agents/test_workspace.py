"""The folders of an agent group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanotasks.agents import instructions, workspace


def test_a_new_group_gets_its_folders(tmp_path: Path) -> None:
    """Memory begins with the instructions; the provider's settings are seeded."""
    workspace.init_group(tmp_path, "andy", "ag-1", "Be kind.")
    group = tmp_path / "groups" / "andy"
    assert (group / "CLAUDE.local.md").read_text() == "Be kind."
    assert (group / "conversations").is_dir()
    state = workspace.claude_folder(tmp_path, "ag-1")
    assert "env" in json.loads((state / "settings.json").read_text())
    assert (state / "skills").is_dir()


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """Memory and settings belong to the agent."""
    workspace.init_group(tmp_path, "andy", "ag-1", "Be kind.")
    (tmp_path / "groups" / "andy" / "CLAUDE.local.md").write_text("I learned something.")
    settings = workspace.claude_folder(tmp_path, "ag-1") / "settings.json"
    settings.write_text("{malformed")
    workspace.init_group(tmp_path, "andy", "ag-1", "Other.")
    assert (tmp_path / "groups" / "andy" / "CLAUDE.local.md").read_text() == "I learned something."
    assert settings.read_text() == "{malformed"


@pytest.mark.parametrize(
    ("skills", "chosen"),
    [
        ("all", ["memory", "writing"]),
        (["writing"], ["writing"]),
        (["writing", "no-such"], ["writing"]),
        ([], []),
        (None, []),
    ],
)
def test_chosen_skills(skills: object, chosen: list[str]) -> None:
    """All that ship, or those that are listed and ship."""
    assert workspace.chosen_skills(skills, {"memory", "writing"}) == chosen


def test_mount_points_replace_what_is_in_their_way(tmp_path: Path) -> None:
    """An agent cannot keep its own next start from working."""
    (tmp_path / "container.json").mkdir()
    (tmp_path / "agent").write_text("in the way")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "extra").symlink_to(tmp_path / "elsewhere")
    workspace.prepare_mount_points(tmp_path, folders=["agent", "extra"], files=["container.json"])
    assert (tmp_path / "container.json").is_file()
    assert (tmp_path / "agent").is_dir()
    assert (tmp_path / "extra").is_dir()
    assert not (tmp_path / "extra").is_symlink()


def test_the_home_of_a_child_process_holds_the_groups_state(tmp_path: Path) -> None:
    """It is not the user's home, and leads to what a container has at /home/node/.claude."""
    workspace.init_group(tmp_path, "andy", "ag-1")
    state = workspace.claude_folder(tmp_path, "ag-1")
    home = workspace.make_home(state)
    assert (home / ".claude").resolve() == state.resolve()
    assert workspace.make_home(state) == home


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """What ships: one skill with instructions, one without, two modules."""
    root = tmp_path / "container"
    (root / "skills" / "writing").mkdir(parents=True)
    (root / "skills" / "writing" / "instructions.md").write_text("Write well.")
    (root / "skills" / "quiet").mkdir()
    (root / "agent_runner" / "tools").mkdir(parents=True)
    for name in ("cli", "core"):
        (root / "agent_runner" / "tools" / f"{name}.instructions.md").write_text(f"About {name}.")
    return root


def test_fragments(container: Path) -> None:
    """Skills and modules that ship instructions, servers that have some; names that are no file names are left out."""
    servers = {
        "web": {"command": "x", "instructions": "Browse."},
        "mute": {"command": "x"},
        "../up": {"instructions": "x"},
    }
    assert instructions.fragments(container, servers, "group") == {
        "skill-writing.md": "Write well.",
        "module-cli.md": "About cli.",
        "module-core.md": "About core.",
        "mcp-web.md": "Browse.",
    }
    assert "module-cli.md" not in instructions.fragments(container, {}, "disabled")


def test_instructions_are_composed_in_a_fixed_order(tmp_path: Path) -> None:
    """The shared part first, then the fragments by name."""
    assert instructions.claude_md(["skill-b.md", "mcp-a.md"]).splitlines()[1:] == [
        "@./.claude-shared.md",
        "@./.claude-fragments/mcp-a.md",
        "@./.claude-fragments/skill-b.md",
    ]


def test_compose_reconciles(tmp_path: Path) -> None:
    """Stale fragments go, and the shared part is where the runtime shows it."""
    workspace.init_group(tmp_path, "andy", "ag-1")
    group = tmp_path / "groups" / "andy"
    instructions.compose(group, {"skill-a.md": "A", "skill-b.md": "B"}, "/app/CLAUDE.md")
    (group / ".claude-fragments" / "own.md").write_text("of the agent")
    (group / ".claude-shared.md").unlink()
    (group / ".claude-shared.md").write_text("of the agent")
    instructions.compose(group, {"skill-a.md": "A2"}, "/elsewhere/CLAUDE.md")
    assert [path.name for path in (group / ".claude-fragments").iterdir()] == ["skill-a.md"]
    assert (group / ".claude-fragments" / "skill-a.md").read_text() == "A2"
    assert (group / ".claude-shared.md").readlink() == Path("/elsewhere/CLAUDE.md")
    assert "skill-b" not in (group / "CLAUDE.md").read_text()
