"""Choosing a runtime, with and without Docker."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nanotasks.errors import ConfigError, DependencyDownError
from nanotasks.runtimes import image
from nanotasks.runtimes.select import NOT_ISOLATED, decide, runtime_named
from nanotasks.settings import Settings

# Nobody listens there, so pulling it fails at once.
UNREACHABLE = "127.0.0.1:9/no-such-base:1"


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a Docker daemon."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")


def _settings(tmp_path: Path, **values: Any) -> Settings:
    return replace(Settings(), data_dir=tmp_path, image="", **values)


def test_process_needs_nothing(tmp_path: Path) -> None:
    """Who asks for child processes gets them, with the plain line."""
    decision = decide(_settings(tmp_path, runtime="process"))
    assert (decision.name, decision.notice) == ("process", NOT_ISOLATED)


@pytest.mark.usefixtures("no_docker")
def test_auto_without_docker_is_process(tmp_path: Path) -> None:
    """One line says what is missing and what that means."""
    decision = decide(_settings(tmp_path, runtime="auto"))
    assert decision.name == "process"
    assert decision.notice == f"Docker does not answer. {NOT_ISOLATED}"


@pytest.mark.usefixtures("no_docker")
def test_docker_without_docker_is_an_error(tmp_path: Path) -> None:
    """It says what to do."""
    with pytest.raises(DependencyDownError, match="Start the Docker daemon"):
        decide(_settings(tmp_path, runtime="docker"))


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_auto_with_an_image_that_cannot_be_built_is_process(tmp_path: Path) -> None:
    """One line says why the image could not be built and how to mend it."""
    decision = decide(_settings(tmp_path, runtime="auto", image_base=UNREACHABLE))
    assert decision.name == "process"
    assert "\n" not in decision.notice
    assert "nanotasks image base" in decision.notice
    assert decision.notice.endswith(NOT_ISOLATED)


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_docker_with_an_image_that_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    """It names the builder's reason."""
    with pytest.raises(image.ImageBuildError, match="connection refused"):
        decide(_settings(tmp_path, runtime="docker", image_base=UNREACHABLE))


@pytest.mark.docker
def test_auto_with_docker_is_docker(tmp_path: Path, agent_image: str) -> None:
    """With an image there is nothing to say."""
    decision = decide(replace(_settings(tmp_path, runtime="auto"), image=agent_image))
    assert (decision.name, decision.notice) == ("docker", "")


@pytest.mark.docker
@pytest.mark.usefixtures("docker_client")
def test_workers_build_nothing(tmp_path: Path) -> None:
    """A worker that has to decide for itself does not stop for a build."""
    decision = decide(_settings(tmp_path, runtime="auto", image_base=UNREACHABLE), build=False)
    assert decision.name == "process"
    assert "not built yet" in decision.notice


def test_runtimes_are_found_by_name(tmp_path: Path) -> None:
    """One per process; an unknown name is a configuration error."""
    settings = _settings(tmp_path)
    assert runtime_named("process", settings) is runtime_named("process", settings)
    assert runtime_named("docker", settings).isolates
    with pytest.raises(ConfigError):
        runtime_named("podman", settings)
