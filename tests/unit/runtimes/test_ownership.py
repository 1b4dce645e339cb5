"""Giving an agent's folders to its user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanotasks.runtimes.ownership import give_to

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
UID = 1000


def _owner(path: Path) -> int:
    return path.lstat().st_uid


def test_everything_is_given(tmp_path: Path) -> None:
    """The folder and all that is in it belong to the agent's user afterwards."""
    deep = tmp_path / "top" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    give_to(tmp_path / "top", UID, UID)
    assert {_owner(path) for path in [tmp_path / "top", *(tmp_path / "top").rglob("*")]} == {UID}


def test_links_are_given_and_never_followed(tmp_path: Path) -> None:
    """A link to a file elsewhere does not give that file away."""
    (tmp_path / "secret").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "inner").touch()
    top = tmp_path / "top"
    top.mkdir()
    (top / "link").symlink_to(tmp_path / "secret")
    (top / "folder").symlink_to(tmp_path / "elsewhere")
    give_to(top, UID, UID)
    assert _owner(top / "link") == _owner(top / "folder") == UID
    assert _owner(tmp_path / "secret") == _owner(tmp_path / "elsewhere" / "inner") == 0


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """The top folder itself must be one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "top").symlink_to(tmp_path / "real")
    with pytest.raises(OSError):
        give_to(tmp_path / "top", UID, UID)
    assert _owner(tmp_path / "real") == 0


def test_what_the_host_adds_later_is_given_too(tmp_path: Path) -> None:
    """New entries of a folder that was given before are found; the agent's own are not walked again."""
    top = tmp_path / "top"
    (top / "own").mkdir(parents=True)
    give_to(top, UID, UID)
    (top / "own" / "untouched").touch()
    (top / "new").mkdir()
    (top / "new" / "file").touch()
    give_to(top, UID, UID)
    assert _owner(top / "new") == _owner(top / "new" / "file") == UID
    assert _owner(top / "own" / "untouched") == 0


def test_an_interrupted_walk_is_repeated(tmp_path: Path) -> None:
    """The top folder is given last, so that it says whether everything was."""
    top = tmp_path / "top"
    (top / "a").mkdir(parents=True)
    (top / "a" / "file").touch()
    os.chown(top / "a", UID, UID)
    give_to(top, UID, UID)
    assert _owner(top / "a" / "file") == UID
