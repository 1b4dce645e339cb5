"""What every agent container is confined by, and the proof that the daemon really set it.

A daemon drops some flags with no more than a warning, or a proxy in front of it rewrites them. So a container is
inspected after it was created, and one that lacks a flag is never started.
"""

from __future__ import annotations

import math
from typing import Any

from nanotasks.runtimes.contract import StartSpec

TMP_MB = 256
HOME = "/home/node"
AGENT_UID = 1000


def container_user(host_uid: int, host_gid: int, security_options: list[str]) -> tuple[int, int]:
    """The uid and gid of the agent: never the machine's root, and able to write the folders mounted for it.

    A rootless daemon maps the container's root to the user who runs it, so there 0 is that user.
    """
    if any(option.startswith("name=rootless") for option in security_options):
        return 0, 0
    return (AGENT_UID, AGENT_UID) if host_uid == 0 else (host_uid, host_gid)


def host_config(spec: StartSpec, user: tuple[int, int], cpus_available: float) -> dict[str, Any]:
    """The `HostConfig` of the Engine API."""
    memory = spec.limits.memory_mb * 1024 * 1024
    uid, gid = user
    return {
        "Init": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Privileged": False,
        "ReadonlyRootfs": True,
        "Tmpfs": {
            "/tmp": f"rw,nosuid,nodev,mode=1777,size={TMP_MB}m",
            HOME: f"rw,nosuid,nodev,mode=0700,uid={uid},gid={gid},size={TMP_MB}m",
        },
        "Memory": memory,
        "MemorySwap": memory,
        "NanoCpus": math.floor(min(spec.limits.cpus, cpus_available) * 1_000_000_000),
        "PidsLimit": spec.limits.pids,
        "Ulimits": [
            {"Name": "nofile", "Soft": spec.limits.nofile, "Hard": spec.limits.nofile},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "NetworkMode": spec.network,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": f"{spec.limits.log_kb}k", "max-file": "1"}},
        "RestartPolicy": {"Name": "no"},
        "Mounts": [
            {"Type": "bind", "Source": str(mount.source), "Target": mount.target, "ReadOnly": mount.read_only}
            for mount in spec.mounts
        ],
    }


# `Memory` first: without it the kernel has no limit to compare swap with.
_CHECKED = (
    "Init",
    "CapDrop",
    "Privileged",
    "ReadonlyRootfs",
    "Tmpfs",
    "Memory",
    "NanoCpus",
    "PidsLimit",
    "NetworkMode",
)


def missing_flags(inspected: dict[str, Any], wanted: dict[str, Any], user: str, *, swap_limit: bool) -> list[str]:
    """Names of the flags that the created container lacks; empty when it is as confined as asked for."""
    actual = inspected["HostConfig"]
    missing = [name for name in _CHECKED if actual.get(name) != wanted[name]]
    if swap_limit and actual.get("MemorySwap") != wanted["MemorySwap"]:
        missing.append("MemorySwap")
    if not any(option in ("no-new-privileges", "no-new-privileges:true") for option in actual.get("SecurityOpt") or ()):
        missing.append("SecurityOpt")
    limits = {(limit["Name"], limit["Hard"]) for limit in actual.get("Ulimits") or ()}
    if any((limit["Name"], limit["Hard"]) not in limits for limit in wanted["Ulimits"]):
        missing.append("Ulimits")
    if inspected["Config"].get("User") != user:
        missing.append("User")
    read_only = {mount["Target"] for mount in actual.get("Mounts") or () if mount.get("ReadOnly")}
    if any(mount["ReadOnly"] and mount["Target"] not in read_only for mount in wanted["Mounts"]):
        missing.append("Mounts")
    if actual.get("CapAdd") or actual.get("Devices") or actual.get("PidMode") == "host":
        missing.append("nothing more than asked for")
    return missing
