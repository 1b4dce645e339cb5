"""Sockets find a short, private directory, however deep the data directory is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nanotasks.errors import ConfigError
from nanotasks.paths import SOCKET_PATH_BYTES, runtime_dir, socket_path
from nanotasks.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings with a very deep data directory and no runtime directory of their own."""
    made = Settings(data_dir=tmp_path / ("d" * 200) / ("e" * 200))
    yield made
    shutil.rmtree(runtime_dir(made))


def test_a_deep_data_directory_has_short_sockets(settings: Settings) -> None:
    """The path fits the kernel's limit although the data directory does not."""
    assert len(os.fsencode(socket_path(settings, "terminal.sock"))) <= SOCKET_PATH_BYTES


def test_every_process_finds_the_same_directory(settings: Settings) -> None:
    """The directory depends on the data directory only, and is private."""
    first = runtime_dir(settings)
    assert runtime_dir(replace(settings)) == first
    assert first.stat().st_mode & 0o777 == 0o700
    other = runtime_dir(replace(settings, data_dir=settings.data_dir / "other"))
    other.rmdir()
    assert other != first


def test_a_chosen_directory_is_made(tmp_path: Path) -> None:
    """NANOTASKS_RUNTIME_DIR wins, and its parents are created."""
    chosen = tmp_path / "a" / "run"
    assert runtime_dir(Settings(data_dir=tmp_path, runtime_dir=str(chosen))) == chosen
    assert chosen.is_dir()


def test_a_directory_that_others_write_is_refused(tmp_path: Path) -> None:
    """Somebody else could put a socket there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match="Others may write"):
        runtime_dir(Settings(data_dir=tmp_path, runtime_dir=str(shared)))


def test_a_link_in_tmp_is_not_followed(settings: Settings, tmp_path: Path) -> None:
    """A name in /tmp that is a link was put there by somebody else."""
    ours = runtime_dir(settings)
    ours.rmdir()
    ours.symlink_to(tmp_path)
    try:
        with pytest.raises(ConfigError):
            runtime_dir(settings)
    finally:
        ours.unlink()


def test_too_long_a_choice_is_explained(tmp_path: Path) -> None:
    """The error names the setting that mends it."""
    settings = Settings(data_dir=tmp_path, runtime_dir=str(tmp_path / ("r" * 120)))
    with pytest.raises(ConfigError, match="NANOTASKS_RUNTIME_DIR"):
        socket_path(settings, "terminal.sock")
