"""Additional mounts of an agent group: what its configuration asks for, held against the operator's allowlist.

The allowlist is a JSON file outside the data directory, so that no agent reaches it:

    {"allowedRoots": [{"path": "~/projects", "allowReadWrite": true}], "blockedPatterns": ["password"]}

It is read at every start, so a change counts from the next one. Without it, or when it cannot be read, nothing is
mounted; a mount that is refused is logged and left out, and the agent starts without it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nanotasks import logs
from nanotasks.domain.mounts import Allowlist, MountVerdict, container_path, decide_mount, parse_allowlist
from nanotasks.runtimes.contract import Mount
from nanotasks.settings import Settings

_log = logs.get("agents")


def allowed_mounts(additional_mounts: str, settings: Settings) -> tuple[Mount, ...]:
    """The mounts that an agent gets of those its configuration asks for, as JSON; of two for one place the first."""
    requests = _requests(additional_mounts)
    if not requests:
        return ()
    allowlist = read_allowlist(allowlist_path(settings))
    mounts: dict[str, Mount] = {}
    for request in requests:
        verdict = judge(request, allowlist, Path.home(), Path.cwd()) if isinstance(request, dict) else None
        if verdict is None or not verdict.allowed or verdict.target in mounts:
            why = "taken" if verdict and verdict.allowed else verdict.why if verdict else "not_an_object"
            _log.warning("mount_refused", mount=request, why=why, pattern=verdict.pattern if verdict else None)
            continue
        mounts[verdict.target] = Mount(Path(verdict.real_path), verdict.target, read_only=verdict.read_only)
    return tuple(mounts.values())


def _requests(text: str) -> list[Any]:
    try:
        requests = json.loads(text)
    except (ValueError, RecursionError):
        requests = None
    if not isinstance(requests, list):
        _log.warning("mounts_unreadable", additional_mounts=text[:200])
        return []
    return requests


def allowlist_path(settings: Settings) -> Path:
    """Where the allowlist is."""
    if settings.mount_allowlist:
        return Path(settings.mount_allowlist).expanduser()
    return Path.home() / ".config" / "nanotasks" / "mount-allowlist.json"


def read_allowlist(path: Path) -> Allowlist | None:
    """The allowlist as it is now; None when there is none, or when it cannot be read."""
    try:
        allowlist = parse_allowlist(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        _log.error("mount_allowlist_unreadable", path=str(path), error=str(error))
        return None
    if allowlist is None:
        _log.error("mount_allowlist_unreadable", path=str(path), error="allowedRoots and blockedPatterns must be lists")
    return allowlist


def judge(request: dict[str, Any], allowlist: Allowlist | None, home: Path, working_dir: Path) -> MountVerdict:
    """Decide one request against what the paths really are now."""
    if allowlist is None:
        return MountVerdict("no_allowlist")
    if container_path(request) is None:
        return MountVerdict("invalid_container_path")
    roots = ((_real(root.path, home, working_dir), root.read_write) for root in allowlist.roots)
    real_roots = [(path, read_write) for path, read_write in roots if path is not None]
    return decide_mount(request, allowlist, _real(request.get("hostPath"), home, working_dir), real_roots)


def _real(path: object, home: Path, working_dir: Path) -> str | None:
    """The path with `~` and every link resolved, or None when nothing is there."""
    if not isinstance(path, str):
        return None
    expanded = str(home) + path[1:] if path == "~" or path.startswith("~/") else path
    try:
        # Dots are resolved in the text before links are, as NanoClaw 2 did.
        return os.path.realpath(os.path.normpath(working_dir / expanded), strict=True)
    except (OSError, ValueError):
        return None
