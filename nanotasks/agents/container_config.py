"""container.json: what the runner is told about its agent group, made from the database at each start.

The database is the source of truth; the file is host-owned, written whole, and lies in the session's host folder,
because the provider may differ from session to session.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from nanotasks.agents import safe_files
from nanotasks.assets import asset
from nanotasks.central.groups import AgentGroup, ContainerConfig
from nanotasks.central.sessions import AgentSession
from nanotasks.errors import ConfigError, InvalidError
from nanotasks.session import directories
from nanotasks.settings import Settings

NAME = "container.json"
BUILT_IN_PROVIDER = "demo"


def known_providers() -> list[str]:
    """The providers that the runner has: one module each."""
    folder = asset("container") / "agent_runner" / "providers"
    modules = {path.stem for path in folder.iterdir() if not path.name.startswith(("_", "."))}
    return sorted(modules - {"contract"})


def require_provider(name: str | None) -> None:
    """Raise `InvalidError` for a provider that the runner does not have; `auto` and none are the built-in one."""
    known = known_providers()
    if name is None or name.strip().lower() in {"auto", *known}:
        return
    near = difflib.get_close_matches(name.lower(), known, n=1)
    raise InvalidError(
        f"There is no provider {name!r}.",
        why=f"The runner has {', '.join(known)}.",
        fix=f"Did you mean {near[0]}?" if near else "Choose one of them, or none for the installation's own.",
    )


def provider_name(session_provider: str | None, config_provider: str | None, default: str) -> str:
    """The session's provider, else the configured one, else the installation's; `auto` is the built-in one."""
    chosen = (session_provider or config_provider or default).strip().lower()
    return BUILT_IN_PROVIDER if chosen in {"", "auto"} else chosen


def document(
    group: AgentGroup, config: ContainerConfig, agent_session: AgentSession, settings: Settings
) -> dict[str, Any]:
    """The content of container.json, with NanoClaw 2's field names. Raises `ConfigError` for a damaged row."""
    content: dict[str, Any] = {
        "mcpServers": _json(config, "mcp_servers", dict),
        "packages": {"apt": _json(config, "packages_apt", list), "npm": _json(config, "packages_npm", list)},
        "imageTag": config.image_tag,
        "additionalMounts": _json(config, "additional_mounts", list),
        "skills": _json(config, "skills", (str, list)),
        "provider": provider_name(agent_session.agent_provider, config.provider, settings.provider),
        "groupName": group.name,
        "assistantName": config.assistant_name or group.name,
        "agentGroupId": group.id,
        "maxMessagesPerPrompt": config.max_messages_per_prompt or settings.max_messages_per_prompt,
        "model": config.model,
        "effort": config.effort,
        # Ours: this host answers what is asked about scheduled tasks (`schedule/actions.py`).
        "hostAnswers": True,
    }
    return {name: value for name, value in content.items() if value is not None}


def _json(config: ContainerConfig, field: str, kind: type | tuple[type, ...]) -> Any:
    try:
        value = json.loads(getattr(config, field))
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise ConfigError(
            f"The configuration of the agent group {config.agent_group_id} is damaged.",
            why=f"{field} is {getattr(config, field)!r}.",
            fix="Set it again with `nanotasks groups update`.",
        )
    return value


def write(host_folder: Path, content: dict[str, Any]) -> Path:
    """Write container.json into a session's host folder, atomically, and return its path."""
    with directories.opened(host_folder) as opened:
        safe_files.replace(opened, NAME, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return host_folder / NAME
