"""The agent image: built from `container/Dockerfile`, once, and again when what goes into it changed.

Its name is `nanotasks-agent-<install>:latest`; a label holds the digest of what it was built from. Building
uses the daemon's own builder through the SDK, so neither a `docker` command nor BuildKit is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanotasks.assets import asset
from nanotasks.errors import DependencyDownError
from nanotasks.runtimes.docker_client import LABEL, explained, inspect_image
from nanotasks.settings import Settings

if TYPE_CHECKING:
    from docker import APIClient

Progress = Callable[[str], None]

CODE_TARGET = "/app/src"
CODE_LABEL = f"{LABEL}.code"
BASE_LABEL = f"{LABEL}.base"
BUILD_SILENCE_S = 600
MEND = (
    "Without an image registry, make a base image from this machine's Python and build from it: "
    "`nanotasks image base` and `nanotasks image build --base nanotasks-base:local`."
)


class ImageBuildError(DependencyDownError):
    """The agent image could not be built."""

    code = "image_build_failed"


def image_name(settings: Settings) -> str:
    """The image that agents of this installation run in."""
    return settings.image or f"nanotasks-agent-{settings.install_id}:latest"


def context_files(container: Path) -> list[Path]:
    """What the image is built from, in a fixed order: the Dockerfile, the runner's code and the skills."""
    folders = (container / "agent_runner", container / "skills")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    top = (container / "Dockerfile", container / "entrypoint.sh")
    return [
        *(path for path in top if path.is_file()),
        *sorted(path for path in files if "__pycache__" not in path.parts),
    ]


def code_digest(container: Path) -> str:
    """Hex digest of the names and contents of `context_files`."""
    digest = hashlib.sha256()
    for path in context_files(container):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(container)}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def labels_of(client: APIClient, name: str) -> dict[str, str] | None:
    """The labels of an image, or None when there is no such image."""
    with explained("Docker does not answer."):
        found = inspect_image(client, name)
    return None if found is None else found["Config"].get("Labels") or {}


def carries_code(client: APIClient, name: str, container: Path) -> bool:
    """Whether the image holds exactly this code, so that mounting it would only lose the byte code."""
    return (labels_of(client, name) or {}).get(CODE_LABEL) == code_digest(container)


def is_current(client: APIClient, settings: Settings) -> bool:
    """Whether agents can start: the image exists and, if it is ours to build, holds the present code."""
    labels = labels_of(client, image_name(settings))
    if labels is None or settings.image:
        return labels is not None
    return labels.get(CODE_LABEL) == code_digest(asset("container"))


def ensure(client: APIClient, settings: Settings, progress: Progress) -> str:
    """The name of a usable image, which is built first if need be. Raises `ImageBuildError`."""
    if is_current(client, settings):
        return image_name(settings)
    if settings.image:
        raise ImageBuildError(
            f"There is no image {settings.image}.", fix="Pull or build it, or unset NANOTASKS_IMAGE to build our own."
        )
    build(client, settings, progress)
    return image_name(settings)


def build(client: APIClient, settings: Settings, progress: Progress, base: str | None = None) -> str:
    """Build the agent image from `base` and return its id.

    `progress` gets one line per step. Without a base: the one that was set, else the one the present image was
    built from, else the default. Raises `ImageBuildError` with the builder's reason.
    """
    name = f"nanotasks-agent-{settings.install_id}:latest"
    container = asset("container")
    base = base or _usual_base(client, settings, name)
    with explained("Docker does not answer."):
        previous = inspect_image(client, name)
    progress(f"Building the agent image {name} from {base}")
    with explained("The agent image could not be built."):
        stream = client.build(
            fileobj=_context(container),
            custom_context=True,
            tag=name,
            buildargs={"BASE_IMAGE": base},
            labels={CODE_LABEL: code_digest(container), BASE_LABEL: base},
            rm=True,
            forcerm=True,
            timeout=BUILD_SILENCE_S,
            decode=True,
        )
        for line in _lines(stream):
            progress(line)
        built = str((inspect_image(client, name) or {})["Id"])
        if previous is not None and previous["Id"] != built:
            _forget(client, previous["Id"])
        return built


def _forget(client: APIClient, image_id: str) -> None:
    """Remove the image that the new one replaced, unless it has another name or an agent still runs in it."""
    from docker.errors import APIError

    if (inspect_image(client, image_id) or {}).get("RepoTags") == []:
        with contextlib.suppress(APIError):
            client.remove_image(image_id)


def _usual_base(client: APIClient, settings: Settings, name: str) -> str:
    if settings.image_base == Settings.image_base:
        return (labels_of(client, name) or {}).get(BASE_LABEL, settings.image_base)
    return settings.image_base


def _context(container: Path) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in context_files(container):
            member = tarfile.TarInfo(str(path.relative_to(container)))
            content = path.read_bytes()
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


def _lines(stream: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The builder's messages as lines, without its talk of layers and repeated download messages."""
    seen: set[tuple[str, str]] = set()
    problem = ""
    # Read to its end even after an error, or the connection would stay open.
    for message in stream:
        if "error" in message:
            problem = problem or str(message["error"]).strip().splitlines()[0]
        elif "stream" in message:
            yield from (line for line in str(message["stream"]).splitlines() if line.strip() and not _is_noise(line))
        elif "status" in message:
            key = (str(message.get("id", "")), str(message["status"]))
            if key not in seen:
                seen.add(key)
                yield " ".join(part for part in key if part)
    if problem:
        raise ImageBuildError(why=problem, fix=MEND)


def _is_noise(line: str) -> bool:
    return line.startswith((" --->", "Removing intermediate container"))
