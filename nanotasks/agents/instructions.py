"""CLAUDE.md: the instructions an agent starts with, composed at every start from what ships and what is configured.

    CLAUDE.md               a header and one import per part, the shared part first, the fragments by name
    .claude-shared.md       a link to the instructions that every agent gets (`container/CLAUDE.md`)
    .claude-fragments/      skill-<name>.md     of each skill that ships instructions.md
                            module-<name>.md    of each <name>.instructions.md beside the runner's tools
                            mcp-<server>.md     what the configuration says about an MCP server

The same input always gives the same files, so two sessions that start together do not disturb each other. Which
skills an agent group selected does not matter here (NanoClaw 2's rule).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nanotasks.agents import safe_files
from nanotasks.domain.names import is_safe_name
from nanotasks.session import directories

HEADER = "<!-- Composed at every start; edits are lost. What should last belongs into CLAUDE.local.md. -->"
SHARED = ".claude-shared.md"
FRAGMENTS = ".claude-fragments"
_MODULE_SUFFIX = ".instructions.md"


def fragments(container: Path, mcp_servers: Mapping[str, Any], cli_scope: str) -> dict[str, str]:
    """The parts besides the shared one, text by file name. An agent that may not use the CLI is not told of it."""
    found = {f"skill-{path.parent.name}.md": path.read_text() for path in container.glob("skills/*/instructions.md")}
    for path in container.glob(f"agent_runner/tools/*{_MODULE_SUFFIX}"):
        name = path.name.removesuffix(_MODULE_SUFFIX)
        if name != "cli" or cli_scope != "disabled":
            found[f"module-{name}.md"] = path.read_text()
    for name, server in mcp_servers.items():
        text = server.get("instructions") if isinstance(server, dict) else None
        if isinstance(text, str) and text.strip() and is_safe_name(name):
            found[f"mcp-{name}.md"] = text
    return found


def claude_md(names: Iterable[str]) -> str:
    """The text of CLAUDE.md that imports these fragments."""
    return "\n".join([HEADER, f"@./{SHARED}", *(f"@./{FRAGMENTS}/{name}" for name in sorted(names)), ""])


def compose(workspace: Path, parts: Mapping[str, str], shared: str) -> None:
    """Write all of it into an agent group's workspace; `shared` is where the shared part is for the agent."""
    with directories.opened(workspace) as opened:
        inner = safe_files.folder(opened, FRAGMENTS)
        try:
            for name in safe_files.names(inner):
                if name not in parts:
                    directories.remove(inner, name)
            for name, text in parts.items():
                safe_files.replace(inner, name, text)
        finally:
            os.close(inner)
        safe_files.replace(opened, "CLAUDE.md", claude_md(parts))
    link_shared(workspace, shared)


def link_shared(workspace: Path, shared: str) -> None:
    """Make the link to the shared part, in place of anything else."""
    with directories.opened(workspace) as opened:
        found = directories.entry(opened, SHARED)
        if found is not None and not stat.S_ISLNK(found.st_mode):
            directories.remove(opened, SHARED)
        safe_files.link(opened, SHARED, shared)
