"""What a container is confined by, and noticing that it is not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from nanotasks.runtimes.contract import Limits, Mount, StartSpec
from nanotasks.runtimes.hardening import container_user, host_config, missing_flags

SPEC = StartSpec(
    session_id="s1",
    agent_group_id="ag-1",
    instance_id="inst-1",
    epoch=1,
    image="image",
    limits=Limits(memory_mb=512, cpus=1.5, pids=64, nofile=256, log_kb=100),
    working_dir="/workspace",
    network="none",
    mounts=(Mount(Path("/data/work"), "/workspace", read_only=False), Mount(Path("/data/host"), "/host")),
)


@pytest.mark.parametrize(
    ("uid", "gid", "options", "user"),
    [
        (0, 0, [], (1000, 1000)),  # root's containers are never root
        (1000, 1000, ["name=seccomp,profile=default"], (1000, 1000)),
        (1234, 99, [], (1234, 99)),  # the owner of the mounted folders
        (1234, 99, ["name=seccomp,profile=default", "name=rootless"], (0, 0)),  # which is that user, rootless
    ],
)
def test_the_user_of_a_container(uid: int, gid: int, options: list[str], user: tuple[int, int]) -> None:
    """Never the machine's root, and able to write what is mounted for it."""
    assert container_user(uid, gid, options) == user


def test_no_more_cpus_than_there_are() -> None:
    """A daemon refuses more CPUs than the machine has."""
    assert host_config(SPEC, (1000, 1000), 8.0)["NanoCpus"] == 1_500_000_000
    assert host_config(SPEC, (1000, 1000), 1.0)["NanoCpus"] == 1_000_000_000


def _created() -> dict[str, Any]:
    return {"HostConfig": copy.deepcopy(host_config(SPEC, (1000, 1000), 2.0)), "Config": {"User": "1000:1000"}}


def _missing(created: dict[str, Any], *, swap_limit: bool = True) -> list[str]:
    return missing_flags(created, host_config(SPEC, (1000, 1000), 2.0), "1000:1000", swap_limit=swap_limit)


def test_a_container_as_asked_for_lacks_nothing() -> None:
    """What was asked for is what was set."""
    assert _missing(_created()) == []


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("Init", False),
        ("CapDrop", None),
        ("Privileged", True),
        ("ReadonlyRootfs", False),
        ("Tmpfs", None),
        ("Memory", 0),
        ("MemorySwap", -1),
        ("NanoCpus", 0),
        ("PidsLimit", None),
        ("NetworkMode", "host"),
        ("SecurityOpt", None),
        ("Ulimits", []),
        ("Mounts", []),
    ],
)
def test_a_flag_that_was_not_set_is_named(flag: str, value: object) -> None:
    """A daemon that drops a flag with a warning is caught."""
    created = _created()
    created["HostConfig"][flag] = value
    assert _missing(created) == [flag]


@pytest.mark.parametrize(
    "more", [{"CapAdd": ["SYS_ADMIN"]}, {"PidMode": "host"}, {"Devices": [{"PathOnHost": "/dev/kmsg"}]}]
)
def test_more_than_asked_for_is_refused(more: dict[str, Any]) -> None:
    """Privileges that nobody asked for are noticed too."""
    created = _created()
    created["HostConfig"].update(more)
    assert _missing(created) == ["nothing more than asked for"]


def test_another_user_is_refused() -> None:
    """An image cannot choose its own user."""
    created = _created()
    created["Config"]["User"] = ""
    assert _missing(created) == ["User"]


def test_a_kernel_without_swap_accounting_is_accepted() -> None:
    """Where swap cannot be limited the memory limit still is."""
    created = _created()
    created["HostConfig"]["MemorySwap"] = -1
    assert _missing(created, swap_limit=False) == []
