"""The folders of an agent group: its workspace, and the state that a provider keeps between conversations.

    <data>/groups/<folder>/                       the agent's workspace, shared by all its sessions
      CLAUDE.local.md                               its memory; begins with the instructions it was made with
      conversations/                                archived conversations
      CLAUDE.md, .claude-fragments, .claude-shared.md   composed at each start (instructions.py)
    <data>/sessions/<agent group>/
      .claude-shared/                               provider state: transcripts, settings.json, skills/
      .home/                                        the home folder of agents that run as child processes

Everything here is made when it is missing and left alone when it is there (NanoClaw 2's rule). Both folders belong
to the agent, so the host goes through them by descriptors and follows no link.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from nanotasks.agents import safe_files
from nanotasks.session import directories

# What a Claude Code that runs as an agent needs to be told once (NanoClaw 2's values).
_CLAUDE_SETTINGS = {
    "env": {
        "CLAUDE_CODE_EXPERIMENTAL_AGENT_TEAMS": "1",
        "CLAUDE_CODE_ADDITIONAL_DIRECTORIES_CLAUDE_MD": "1",
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "0",
    }
}


def group_folder(files_dir: Path, folder: str) -> Path:
    """The agent group's workspace."""
    return files_dir / "groups" / folder


def claude_folder(files_dir: Path, agent_group_id: str) -> Path:
    """The provider's state, shared by all sessions of the group."""
    return files_dir / "sessions" / agent_group_id / ".claude-shared"


def init_group(files_dir: Path, folder: str, agent_group_id: str, instructions: str = "") -> None:
    """Make what is missing of an agent group's folders; `instructions` begin a new memory file. Idempotent."""
    workspace, state = group_folder(files_dir, folder), claude_folder(files_dir, agent_group_id)
    workspace.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    with directories.opened(workspace) as opened:
        safe_files.create(opened, "CLAUDE.local.md", instructions)
        os.close(safe_files.folder(opened, "conversations"))
    with directories.opened(state) as opened:
        safe_files.create(opened, "settings.json", json.dumps(_CLAUDE_SETTINGS, indent=2) + "\n")
        os.close(safe_files.folder(opened, "skills"))


def make_home(state: Path) -> Path:
    """A home folder for an agent that runs as a child process: not the user's own, and with the group's state."""
    home = state.parent / ".home"
    home.mkdir(exist_ok=True)
    with directories.opened(home) as opened:
        safe_files.link(opened, ".claude", f"../{state.name}")
    return home


def chosen_skills(skills: object, available: Collection[str]) -> list[str]:
    """The skills of a configuration: `"all"` of those that ship, or the listed ones that do."""
    wanted = available if skills == "all" else skills if isinstance(skills, list) else ()
    return sorted(name for name in wanted if name in available)


def link_skills(state: Path, names: Iterable[str], target: str) -> None:
    """Make `skills/` hold a link `<name>` to `<target>/<name>` for each name, and no other link."""
    with directories.opened(state) as opened:
        safe_files.links(opened, "skills", {name: f"{target}/{name}" for name in names})


def prepare_mount_points(folder: Path, folders: Iterable[str] = (), files: Iterable[str] = ()) -> None:
    """Make the entries over which something will be mounted, in place of anything else that the agent put there."""
    with directories.opened(folder) as opened:
        for name in folders:
            os.close(safe_files.folder(opened, name))
        for name in files:
            found = directories.entry(opened, name)
            if found is not None and not stat.S_ISREG(found.st_mode):
                directories.remove(opened, name)
            safe_files.create(opened, name, "")
