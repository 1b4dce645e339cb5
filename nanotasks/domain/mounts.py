"""Which folders of the host an agent may see (NanoClaw 2's rules), decided on real paths.

A folder must lie in an allowed root, and nothing in its path may look like a secret: a blocked pattern counts
anywhere in the path, so that `credentials` blocks `~/credentials-store` too. Writing needs both the root's and the
request's word for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanotasks.domain.text import trim

CONTAINER_ROOT = "/workspace/extra"
BUILT_IN_BLOCKED = (
    ".ssh",
    ".gnupg",
    ".gpg",
    ".aws",
    ".azure",
    ".gcloud",
    ".kube",
    ".docker",
    "credentials",
    ".env",
    ".netrc",
    ".npmrc",
    ".pypirc",
    "id_rsa",
    "id_ed25519",
    "private_key",
    ".secret",
)


@dataclass(frozen=True)
class AllowedRoot:
    """A folder whose contents may be mounted; the path as the operator wrote it."""

    path: str
    read_write: bool


@dataclass(frozen=True)
class Allowlist:
    roots: tuple[AllowedRoot, ...]
    blocked: tuple[str, ...]


@dataclass(frozen=True)
class MountVerdict:
    """Whether a mount is allowed. `why` is `allowed`, `no_allowlist`, `invalid_container_path`,
    `host_path_missing`, `blocked_pattern` (then `pattern` says which) or `not_under_allowed_root`.
    """

    why: str
    pattern: str | None = None
    real_path: str = ""
    target: str = ""
    read_only: bool = True

    @property
    def allowed(self) -> bool:
        return self.why == "allowed"


def parse_allowlist(document: Any) -> Allowlist | None:
    """The allowlist of a JSON document, or None when it has not the right shape: then nothing may be mounted."""
    if not isinstance(document, dict):
        return None
    roots, blocked = document.get("allowedRoots"), document.get("blockedPatterns")
    if not isinstance(roots, list) or not isinstance(blocked, list):
        return None
    readable = all(isinstance(root, dict) and isinstance(root.get("path"), str) for root in roots)
    if not readable or not all(isinstance(pattern, str) for pattern in blocked):
        return None
    return Allowlist(
        tuple(AllowedRoot(root["path"], _is_yes(root.get("allowReadWrite"))) for root in roots),
        tuple(dict.fromkeys((*BUILT_IN_BLOCKED, *blocked))),
    )


def container_path(request: dict[str, Any]) -> str | None:
    """The request's path below `/workspace/extra`, by default the name of the folder; None for one that is unusable."""
    wanted = request.get("containerPath") or str(request.get("hostPath") or "").rstrip("/").rpartition("/")[2]
    if not isinstance(wanted, str) or not trim(wanted) or wanted.startswith("/"):
        return None
    return None if ".." in wanted or ":" in wanted or "\0" in wanted else wanted


def blocked_by(real_path: str, patterns: Sequence[str]) -> str | None:
    """The first pattern that is somewhere in the path."""
    return next((pattern for pattern in patterns if pattern in real_path), None)


def decide_mount(
    request: dict[str, Any], allowlist: Allowlist, real_path: str | None, real_roots: Sequence[tuple[str, bool]]
) -> MountVerdict:
    """Decide one request. `real_path` is None where there is nothing; `real_roots` are the roots that are there."""
    target = container_path(request)
    if target is None:
        return MountVerdict("invalid_container_path")
    if real_path is None:
        return MountVerdict("host_path_missing")
    pattern = blocked_by(real_path, allowlist.blocked)
    if pattern is not None:
        return MountVerdict("blocked_pattern", pattern)
    for root, read_write in real_roots:
        if _is_below(real_path, root):
            read_only = not (read_write and request.get("readonly") is False)
            return MountVerdict("allowed", None, real_path, f"{CONTAINER_ROOT}/{target}", read_only)
    return MountVerdict("not_under_allowed_root")


def _is_below(real_path: str, root: str) -> bool:
    # A folder whose name begins with two dots is refused as well: NanoClaw 2 took it for a way out.
    inside = f"{root.rstrip('/')}/"
    return real_path == root or (real_path.startswith(inside) and not real_path.removeprefix(inside).startswith(".."))


def _is_yes(value: Any) -> bool:
    return value not in (None, False, 0, "")
