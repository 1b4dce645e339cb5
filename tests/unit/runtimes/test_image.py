"""Building the agent image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError

from nanotasks.assets import asset
from nanotasks.runtimes import image
from nanotasks.runtimes.base_image import LOCAL_BASE
from nanotasks.runtimes.docker_client import inspect_image
from nanotasks.settings import Settings


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the container folder that the test may change."""
    copy = tmp_path / "container"
    shutil.copytree(asset("container"), copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(image, "asset", lambda _name: copy)
    return copy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation without an image, on the local base."""
    return replace(Settings(), data_dir=tmp_path, image="", image_base=LOCAL_BASE)


@pytest.fixture
def client(docker_client: Any, agent_image: str, settings: Settings) -> Iterator[Any]:
    """The daemon, with the local base made; the installation's image is removed afterwards."""
    yield docker_client
    with suppress(APIError):
        docker_client.remove_image(image.image_name(settings))


def test_the_digest_follows_the_code(container: Path) -> None:
    """Any change of what goes into the image changes it; byte code does not."""
    before = image.code_digest(container)
    cache = container / "agent_runner" / "__pycache__"
    cache.mkdir()
    (cache / "x.pyc").write_text("byte code")
    assert image.code_digest(container) == before
    (container / "agent_runner" / "new.py").write_text("")
    after = image.code_digest(container)
    assert after != before
    (container / "agent_runner" / "new.py").rename(container / "agent_runner" / "other.py")
    assert image.code_digest(container) != after


def test_the_name_is_the_installations(settings: Settings) -> None:
    """Two installations do not share an image; a setting overrides it."""
    assert image.image_name(settings) == f"nanotasks-agent-{settings.install_id}:latest"
    assert image.image_name(replace(settings, image="mine:1")) == "mine:1"


@pytest.mark.docker
def test_built_once_and_again_when_the_code_changes(container: Path, settings: Settings, client: Any) -> None:
    """Progress is told while it is built; the image that was replaced goes."""
    (container / "agent_runner" / "own.py").write_text("x = 0\n")
    lines: list[str] = []
    name = image.ensure(client, settings, lines.append)
    assert name in lines[0]
    assert any(line.startswith("Step") for line in lines)
    first = (inspect_image(client, name) or {})["Id"]
    lines.clear()
    image.ensure(client, settings, lines.append)
    assert lines == []
    assert image.carries_code(client, name, container)
    (container / "agent_runner" / "new.py").write_text("x = 1\n")
    assert not image.carries_code(client, name, container)
    image.ensure(client, settings, lines.append)
    assert image.is_current(client, settings)
    assert inspect_image(client, first) is None


@pytest.mark.docker
def test_an_image_with_another_name_is_kept(container: Path, settings: Settings, client: Any, agent_image: str) -> None:
    """Equal builds of two installations are one image: replacing it here leaves it to the other."""
    image.build(client, settings, lambda _line: None)
    (container / "agent_runner" / "own.py").write_text("x = 2\n")
    image.ensure(client, settings, lambda _line: None)
    assert inspect_image(client, agent_image) is not None


@pytest.mark.docker
def test_the_base_of_the_present_image_is_kept(settings: Settings, client: Any) -> None:
    """Who built once from another base need not say so again."""
    image.build(client, settings, lambda _line: None)
    usual = replace(settings, image_base=Settings.image_base)
    lines: list[str] = []
    image.build(client, usual, lines.append)
    assert LOCAL_BASE in lines[0]


@pytest.mark.docker
def test_a_build_that_fails_says_how_to_mend_it(settings: Settings, docker_client: Any) -> None:
    """One line, with the builder's reason and the commands that need no registry."""
    with pytest.raises(image.ImageBuildError) as failed:
        image.build(docker_client, settings, lambda _line: None, base="127.0.0.1:9/no-such-base:1")
    assert "connection refused" in failed.value.why
    assert "nanotasks image build --base" in failed.value.fix
    assert "\n" not in str(failed.value)


@pytest.mark.docker
def test_a_named_image_is_not_built(settings: Settings, docker_client: Any) -> None:
    """An image that the user names is the user's to provide."""
    named = replace(settings, image="no-such-image:1")
    assert not image.is_current(docker_client, named)
    with pytest.raises(image.ImageBuildError, match="no-such-image:1"):
        image.ensure(docker_client, named, lambda _line: None)
