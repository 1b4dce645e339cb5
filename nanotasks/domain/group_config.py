"""What an agent group's configuration may hold. The fields are the columns of `container_configs`.

provider, model, effort, image_tag, assistant_name    text or null
max_messages_per_prompt                                1 or more, or null
cli_scope                                              disabled, group or global
skills                                                 "all" or a list of names
mcp_servers                                            name → {command, args?, env?, instructions?}
packages_apt, packages_npm                             lists of package names
additional_mounts                                      list of {hostPath, containerPath?, readonly?}
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from nanotasks.domain.names import is_apt_package, is_npm_package
from nanotasks.domain.vocabulary import CLI_SCOPES
from nanotasks.errors import InvalidError

TEXT_FIELDS = ("provider", "model", "effort", "image_tag", "assistant_name")
JSON_FIELDS = ("skills", "mcp_servers", "packages_apt", "packages_npm", "additional_mounts")
FIELDS = (*TEXT_FIELDS, "max_messages_per_prompt", "cli_scope", *JSON_FIELDS)

_MOUNT_KEYS = {"hostPath", "containerPath", "readonly"}
_SERVER_KEYS = {"command", "args", "env", "instructions"}


def require_valid(config: Mapping[str, Any]) -> None:
    """Raise `InvalidError` naming the first field that is unknown or holds something else than it should."""
    for field, value in config.items():
        problem = what_is_wrong(field, value)
        if problem:
            raise InvalidError(f"{field} {problem}.")


def what_is_wrong(field: str, value: Any) -> str:
    """What is wrong with one field's value, as the end of a sentence; empty when nothing is."""
    if field not in FIELDS:
        near = difflib.get_close_matches(field, FIELDS, n=1)
        return "is not a field of a configuration" + (f"; did you mean {near[0]}" if near else "")
    if field in TEXT_FIELDS:
        return "" if value is None or (isinstance(value, str) and value.strip()) else "must be a text or null"
    if field == "max_messages_per_prompt":
        fits = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)
        return "" if fits else "must be a whole number from 1, or null"
    if field == "cli_scope":
        return "" if value in CLI_SCOPES else f"must be one of {', '.join(CLI_SCOPES)}"
    return _CHECKS[field](value)


def _skills(value: Any) -> str:
    return "" if value == "all" or _is_texts(value) else 'must be "all" or a list of names'


def _servers(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be an object of servers by name"
    for name, server in value.items():
        if not isinstance(server, dict) or not isinstance(server.get("command"), str) or not server["command"]:
            return f"has a server {name!r} without a command"
        if set(server) - _SERVER_KEYS:
            return f"has a server {name!r} with unknown keys {', '.join(sorted(set(server) - _SERVER_KEYS))}"
        if not _is_texts(server.get("args", [])):
            return f"has a server {name!r} whose args are not a list of texts"
        environment = server.get("env", {})
        if not isinstance(environment, dict) or not _is_texts(list(environment.values())):
            return f"has a server {name!r} whose env is not an object of texts"
        if not isinstance(server.get("instructions", ""), str):
            return f"has a server {name!r} whose instructions are not a text"
    return ""


def _apt(value: Any) -> str:
    return _packages(value, "Debian", is_apt_package)


def _npm(value: Any) -> str:
    return _packages(value, "npm", is_npm_package)


def _packages(value: Any, kind: str, accepts: Any) -> str:
    if not _is_texts(value):
        return "must be a list of package names"
    bad = [name for name in value if not accepts(name)]
    return f"has {bad[0]!r}, which is no {kind} package name" if bad else ""


def _mounts(value: Any) -> str:
    if not isinstance(value, list):
        return "must be a list of mounts"
    for mount in value:
        if not isinstance(mount, dict) or not isinstance(mount.get("hostPath"), str) or not mount["hostPath"]:
            return "has a mount without a hostPath"
        if set(mount) - _MOUNT_KEYS:
            return f"has a mount with unknown keys {', '.join(sorted(set(mount) - _MOUNT_KEYS))}"
        if not isinstance(mount.get("containerPath", ""), str) or not isinstance(mount.get("readonly", True), bool):
            return f"has a mount of {mount['hostPath']} with a bad containerPath or readonly"
    return ""


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_CHECKS = {
    "skills": _skills,
    "mcp_servers": _servers,
    "packages_apt": _apt,
    "packages_npm": _npm,
    "additional_mounts": _mounts,
}
