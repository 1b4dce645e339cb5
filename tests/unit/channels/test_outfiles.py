"""Names from strangers become safe, different file names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.channels.contract import OutboundFile
from nanotasks.channels.outfiles import file_names, keep, path_component


@pytest.mark.parametrize(
    ("identifier", "component"),
    [
        ("family", "family"),
        ("a.b-c_d", "a.b-c_d"),
        ("tg:100", "tg%3A100"),
        ("../etc", "%2E.%2Fetc"),
        (".", "%2E"),
        ("", "%"),
        ("é", "%C3%A9"),
        ("50%", "50%25"),
    ],
)
def test_plain_names_stay_and_others_are_encoded(identifier: str, component: str) -> None:
    """So that a person finds the file of a chat."""
    assert path_component(identifier) == component


@given(st.text(max_size=400), st.text(max_size=400))
def test_different_names_are_different_files(one: str, other: str) -> None:
    """And each is one short component."""
    assert (path_component(one) == path_component(other)) == (one == other)
    for name in (path_component(one), path_component(other)):
        assert "/" not in name and name not in {".", ".."} and 0 < len(name) <= 200


@given(
    st.lists(st.text(max_size=20) | st.sampled_from(["a.txt", "1-a.txt", "file-1", "../x", ".x", "x/y"]), max_size=6)
)
def test_files_of_one_message_never_overwrite_each_other(names: list[str]) -> None:
    """Doubled and unsafe names get one of their own."""
    made = file_names([OutboundFile(name, b"") for name in names])
    assert len(set(made)) == len(names)
    assert not any("/" in name or name.startswith(".") for name in made)


def test_files_are_not_written_through_a_link(tmp_path: Path) -> None:
    """A link with the file's name was put there by somebody else."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "a.txt").symlink_to(outside)
    with pytest.raises(OSError):
        keep(folder, [OutboundFile("a.txt", b"new")])
    assert outside.read_text() == "precious"
