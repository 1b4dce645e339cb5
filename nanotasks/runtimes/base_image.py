"""A base image without a registry: this machine's Python, its libraries and a few tools, imported into Docker.

For machines that cannot reach an image registry, and for tests. The image holds no package manager.
"""

from __future__ import annotations

import importlib.resources
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nanotasks.errors import DependencyDownError
from nanotasks.runtimes.docker_client import explained, inspect_image

if TYPE_CHECKING:
    from docker import APIClient

LOCAL_BASE = "nanotasks-base:local"

_TOOLS = (
    *("sh", "bash", "cat", "ls", "cp", "mv", "rm", "mkdir", "ln", "chmod", "touch", "pwd", "env", "id", "date"),
    *("sleep", "echo", "head", "tail", "sort", "uniq", "wc", "cut", "tr", "grep", "sed", "find", "xargs", "diff"),
    *("tar", "gzip", "ps", "kill", "true", "false", "test", "printf", "basename", "dirname", "realpath", "stat"),
)
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "site-packages"}
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_ZONES = Path("/usr/share/zoneinfo")
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def make_base_image(client: APIClient, name: str = LOCAL_BASE) -> str:
    """Import the base image and return its id; takes a few seconds. Raises `DependencyDownError`."""
    repository, _, tag = name.partition(":")
    with tempfile.TemporaryFile() as packed, explained("The base image could not be imported."):
        with tarfile.open(fileobj=packed, mode="w") as archive:
            _fill(archive)
        packed.seek(0)
        client.import_image(
            packed,
            repository=repository,
            tag=tag or "latest",
            changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV LANG=C.UTF-8", 'CMD ["python3"]'],
        )
        return str((inspect_image(client, name) or {})["Id"])


def _fill(archive: tarfile.TarFile) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = Path(os.path.realpath(sys.executable))
    stdlib = Path(sysconfig.get_path("stdlib"))
    archive.add(python, f"usr/local/bin/{version}", filter=_as_root)
    _link(archive, "usr/local/bin/python3", version)
    archive.add(stdlib, f"usr/local/lib/{version}", filter=_stdlib_member)
    tools = [Path(found).resolve() for found in map(shutil.which, _TOOLS) if found]
    for tool in _TOOLS:
        if found := shutil.which(tool):
            archive.add(Path(found).resolve(), f"usr/bin/{tool}", filter=_as_root)
    _link(archive, "bin/sh", "/usr/bin/sh")
    _link(archive, "bin/bash", "/usr/bin/bash")
    extensions = (stdlib / "lib-dynload").glob("*.so")
    for library in sorted(set(_libraries([python, *extensions, *tools]))):
        archive.add(library.resolve(), str(library).lstrip("/"), filter=_as_root)
    if _CERTIFICATES.exists():
        archive.add(_CERTIFICATES.resolve(), str(_CERTIFICATES).lstrip("/"), filter=_as_root)
    archive.add(_zones(), "usr/share/zoneinfo", filter=_as_root)
    _text(archive, "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
    _text(archive, "etc/group", "root:x:0:\n")
    _folder(archive, "tmp", 0o1777)


def _libraries(binaries: list[Path]) -> Iterator[Path]:
    """Every shared library these need, at the path the loader will look for it."""
    try:
        listing = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError as error:
        raise DependencyDownError("The base image needs the command `ldd`.", fix="Install libc-bin.") from error
    yield from (Path(found) for found in _LIBRARY.findall(listing))


def _zones() -> Path:
    """The time zones of the system, or those of the tzdata package."""
    if (_ZONES / "UTC").exists():
        return _ZONES
    return Path(str(importlib.resources.files("tzdata"))) / "zoneinfo"


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o444 | (0o111 if member.mode & 0o100 else 0)
    return member


def _stdlib_member(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = Path(member.name).parts
    if _LEFT_OUT.intersection(parts) or any(part.startswith("config-") for part in parts):
        return None
    return _as_root(member)


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)


def _text(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o644
    archive.addfile(member, io.BytesIO(text.encode()))


def _folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, mode
    archive.addfile(member)
