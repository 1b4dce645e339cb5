"""Writing into folders that an agent can change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks.agents import safe_files
from nanotasks.errors import HostileFileError
from nanotasks.session import directories


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the folder `agent`."""
    (tmp_path / "agent").mkdir()
    with directories.opened(tmp_path / "agent") as opened:
        yield opened


def test_a_file_is_replaced_whole(tmp_path: Path, folder: int) -> None:
    """Nothing temporary is left."""
    safe_files.replace(folder, "CLAUDE.md", "one")
    safe_files.replace(folder, "CLAUDE.md", "two")
    assert (tmp_path / "agent" / "CLAUDE.md").read_text() == "two"
    assert os.listdir(folder) == ["CLAUDE.md"]


def test_an_equal_file_is_not_written(tmp_path: Path, folder: int) -> None:
    """What is as it should be costs no write."""
    safe_files.replace(folder, "CLAUDE.md", "one")
    before = (tmp_path / "agent" / "CLAUDE.md").stat()
    safe_files.replace(folder, "CLAUDE.md", "one")
    assert (tmp_path / "agent" / "CLAUDE.md").stat() == before


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path, folder: int) -> None:
    """A link to a file of the host leaves that file as it is, even with equal content."""
    target = tmp_path / "of the host"
    target.write_text("precious")
    for text in ("composed", "precious"):
        (tmp_path / "agent" / "CLAUDE.md").unlink(missing_ok=True)
        (tmp_path / "agent" / "CLAUDE.md").symlink_to(target)
        safe_files.replace(folder, "CLAUDE.md", text)
        assert not (tmp_path / "agent" / "CLAUDE.md").is_symlink()
        assert target.read_text() == "precious"


def test_a_pipe_is_replaced_without_waiting(tmp_path: Path, folder: int) -> None:
    """A pipe that nobody writes to does not block the host."""
    os.mkfifo(tmp_path / "agent" / "CLAUDE.md")
    safe_files.replace(folder, "CLAUDE.md", "text")
    assert (tmp_path / "agent" / "CLAUDE.md").read_text() == "text"


def test_a_folder_in_place_of_a_file_goes(tmp_path: Path, folder: int) -> None:
    """With everything in it."""
    (tmp_path / "agent" / "CLAUDE.md" / "deep").mkdir(parents=True)
    safe_files.replace(folder, "CLAUDE.md", "text")
    assert (tmp_path / "agent" / "CLAUDE.md").read_text() == "text"


def test_create_leaves_what_is_there(tmp_path: Path, folder: int) -> None:
    """Memory is seeded once, and a dangling link is not filled."""
    safe_files.create(folder, "memory", "seed")
    safe_files.create(folder, "memory", "other")
    assert (tmp_path / "agent" / "memory").read_text() == "seed"
    (tmp_path / "agent" / "dangling").symlink_to(tmp_path / "nothing")
    safe_files.create(folder, "dangling", "seed")
    assert not (tmp_path / "nothing").exists()


def test_a_link_to_a_folder_is_no_folder(tmp_path: Path, folder: int) -> None:
    """It is replaced by a real one; what it led to is not touched."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tmp_path / "agent" / "skills").symlink_to(tmp_path / "elsewhere")
    safe_files.links(folder, "skills", {"a": "/app/skills/a"})
    assert (tmp_path / "agent" / "skills" / "a").readlink() == Path("/app/skills/a")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["file"]


def test_links_are_brought_up_to_date(tmp_path: Path, folder: int) -> None:
    """Stale links go, wrong ones are corrected, what is no link is the agent's and stays."""
    safe_files.links(folder, "skills", {"a": "/old/a", "b": "/old/b", "c": "/old/c"})
    skills = tmp_path / "agent" / "skills"
    (skills / "c").unlink()
    (skills / "c").mkdir()
    (skills / "own").write_text("of the agent")
    safe_files.links(folder, "skills", {"a": "/new/a", "c": "/new/c"})
    assert sorted(path.name for path in skills.iterdir()) == ["a", "c", "own"]
    assert (skills / "a").readlink() == Path("/new/a")
    assert (skills / "c").is_dir()


def test_a_folder_that_becomes_a_link_is_refused(tmp_path: Path) -> None:
    """Below the top nothing is entered through a link."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "inner").symlink_to(tmp_path)
    with pytest.raises(HostileFileError), directories.opened(tmp_path / "root", "inner"):
        pass
