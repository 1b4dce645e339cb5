"""Inbox, outbox and heartbeat: what is stored is whole, what is read is only what the agent may give."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest

from nanotasks.errors import HostileFileError
from nanotasks.session import SessionFolder, directories
from nanotasks.session.files import (
    OutboxFile,
    RefusedFile,
    clear_heartbeat,
    clear_outbox,
    heartbeat_ms,
    message_folder,
    outbox_files,
    write_inbox_file,
)
from tests.unit.session.conftest import files_of_at_most, names, no_file_to_be_opened

MAX = 1000


def outbox(folder: SessionFolder, message: str = "o1") -> Path:
    path = folder.outbox / message
    path.mkdir(exist_ok=True)
    return path


def take(folder: SessionFolder, *wanted: object, message: str = "o1") -> list[OutboxFile | RefusedFile]:
    return list(outbox_files(folder, message, wanted, MAX))


def refusal(folder: SessionFolder, name: object, message: str = "o1") -> str:
    (found,) = take(folder, name, message=message)
    assert isinstance(found, RefusedFile)
    return found.reason


# Inbox


def test_an_attachment_is_stored_where_the_agent_finds_it(folder: SessionFolder) -> None:
    """The path that is returned leads to it from the workspace, through the link."""
    path = write_inbox_file(folder, "m1:ag-1", "a.txt", b"hello")
    assert path == "inbox/m1:ag-1/a.txt"
    assert (folder.workspace / path).read_bytes() == b"hello"
    assert (folder.host / path).read_bytes() == b"hello"


def test_storing_the_same_again_changes_nothing(folder: SessionFolder) -> None:
    """An append that is repeated after a crash finds its files."""
    write_inbox_file(folder, "m1", "a.txt", b"hello")
    before = (folder.inbox / "m1" / "a.txt").stat()
    assert write_inbox_file(folder, "m1", "a.txt", b"hello") == "inbox/m1/a.txt"
    assert (folder.inbox / "m1" / "a.txt").stat().st_ino == before.st_ino
    assert names(folder.inbox / "m1") == ["a.txt"]


@pytest.mark.parametrize("other", [b"HELLO", b"hell", b"hello!", b""])
def test_another_content_under_the_name_is_not_overwritten(folder: SessionFolder, other: bytes) -> None:
    """What is there stays."""
    write_inbox_file(folder, "m1", "a.txt", other)
    with pytest.raises(HostileFileError):
        write_inbox_file(folder, "m1", "a.txt", b"hello")
    assert (folder.inbox / "m1" / "a.txt").read_bytes() == other


def test_what_a_killed_writer_left_is_replaced(folder: SessionFolder) -> None:
    """A part of a file never has the attachment's name."""
    (folder.inbox / "m1").mkdir()
    (folder.inbox / "m1" / "\\part").write_bytes(b"hel")
    write_inbox_file(folder, "m1", "a.txt", b"hello")
    assert names(folder.inbox / "m1") == ["a.txt"]


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", "a\0b", "x" * 256, "\ud800"])
def test_an_unsafe_name_is_refused(folder: SessionFolder, name: str) -> None:
    """Nothing is written."""
    with pytest.raises(HostileFileError):
        write_inbox_file(folder, "m1", name, b"x")
    assert names(folder.inbox) == []


def test_half_a_file_does_not_stay(folder: SessionFolder) -> None:
    """It would keep the room on a full disk that the next try needs."""
    with pytest.raises(OSError), files_of_at_most(100_000):
        write_inbox_file(folder, "m1", "a.txt", b"x" * 200_000)
    assert names(folder.inbox / "m1") == []
    write_inbox_file(folder, "m1", "a.txt", b"x" * 200_000)
    assert names(folder.inbox / "m1") == ["a.txt"]


@pytest.mark.parametrize("target", ["folder", "file"])
def test_a_link_in_place_of_the_messages_folder_is_not_followed(
    folder: SessionFolder, tmp_path: Path, target: str
) -> None:
    """Nothing is written behind it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("precious")
    (folder.inbox / "m1").symlink_to(tmp_path / target)
    with pytest.raises(HostileFileError, match="not a folder"):
        write_inbox_file(folder, "m1", "a.txt", b"x")
    assert names(tmp_path / "folder") == []


def test_a_link_in_place_of_the_inbox_is_not_followed(folder: SessionFolder, tmp_path: Path) -> None:
    """Nor anywhere on the way."""
    folder.inbox.rmdir()
    folder.inbox.symlink_to(tmp_path)
    with pytest.raises(HostileFileError, match="not a folder"):
        write_inbox_file(folder, "m1", "a.txt", b"x")


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_place_of_the_file_is_not_written_through(
    folder: SessionFolder, tmp_path: Path, dangling: bool
) -> None:
    """The attachment is refused."""
    victim = tmp_path / "precious"
    if not dangling:
        victim.write_text("precious")
    (folder.inbox / "m1").mkdir()
    (folder.inbox / "m1" / "a.txt").symlink_to(victim)
    with pytest.raises(HostileFileError):
        write_inbox_file(folder, "m1", "a.txt", b"x")
    assert victim.exists() != dangling


@pytest.mark.parametrize("unsafe", ["spaces/AAA/messages/BBB", "..", "a\\b", "", "x" * 300, "\ud800/", "a\0"])
def test_a_message_id_that_is_no_file_name_gets_a_folder_too(folder: SessionFolder, unsafe: str) -> None:
    """It is named by its digest, always the same."""
    path = write_inbox_file(folder, unsafe, "a.txt", b"x")
    assert path == f"inbox/{message_folder(unsafe)}/a.txt"
    assert message_folder(unsafe).startswith("sha256-")
    assert (folder.workspace / path).read_bytes() == b"x"


def test_ids_have_different_folders() -> None:
    """A safe id is its own folder."""
    assert message_folder("telegram:1:ag-1") == "telegram:1:ag-1"
    assert len({message_folder(one) for one in ["a/b", "a\\b", "a%2Fb", "ab", "a/b/"]}) == 5


# Outbox


def test_files_are_read_in_order(folder: SessionFolder) -> None:
    """Empty ones and hidden ones too, up to the limit."""
    here = outbox(folder)
    (here / "b.txt").write_bytes(b"B" * MAX)
    (here / ".hidden").write_bytes(b"")
    assert take(folder, "b.txt", ".hidden") == [OutboxFile("b.txt", b"B" * MAX), OutboxFile(".hidden", b"")]


def test_a_bad_file_does_not_keep_back_the_others(folder: SessionFolder) -> None:
    """It is reported in its place."""
    (outbox(folder) / "good").write_bytes(b"x")
    found = take(folder, "missing", "good", "../up")
    assert [type(one) for one in found] == [RefusedFile, OutboxFile, RefusedFile]


def test_a_file_that_is_too_large_is_refused(folder: SessionFolder) -> None:
    """By what is read, so that growing meanwhile does not help."""
    (outbox(folder) / "a").write_bytes(b"x" * (MAX + 1))
    assert "more than 1000 bytes" in refusal(folder, "a")


def test_a_file_is_not_refused_for_the_trouble_of_this_host(folder: SessionFolder) -> None:
    """Whoever has too many open files asks again, and finds it."""
    (outbox(folder) / "a").write_bytes(b"x")
    with pytest.raises(OSError) as trouble, no_file_to_be_opened():
        take(folder, "a")
    assert trouble.value.errno == errno.EMFILE
    assert take(folder, "a") == [OutboxFile("a", b"x")]


def test_a_missing_file_or_folder_is_refused(folder: SessionFolder) -> None:
    """A message goes out without it."""
    assert refusal(folder, "a") == "It is missing."
    outbox(folder)
    assert refusal(folder, "a") == "It is missing."


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../outbound.db", "/etc/passwd", "a\\b", "a\0b", "x" * 300, None, 7, [], "\ud800"]
)
def test_a_name_that_is_none_is_refused(folder: SessionFolder, name: object) -> None:
    """Names come from the agent, as JSON."""
    outbox(folder)
    assert refusal(folder, name) == "It is not the name of a file."


@pytest.mark.parametrize("message", ["..", "../..", "a/b", ".", ""])
def test_a_message_id_that_leads_elsewhere_is_refused(folder: SessionFolder, message: str) -> None:
    """Ids come from the agent too."""
    assert "not the name of a folder" in refusal(folder, "outbound.db", message)


def test_a_link_is_not_followed(folder: SessionFolder, tmp_path: Path) -> None:
    """Not as the file, not as the message's folder, not as the outbox."""
    (tmp_path / "o1").mkdir()
    (tmp_path / "o1" / "secret").write_bytes(b"secret")
    (outbox(folder) / "secret").symlink_to(tmp_path / "o1" / "secret")
    assert "not a regular file" in refusal(folder, "secret")
    (folder.outbox / "o1" / "secret").unlink()
    (folder.outbox / "o1").rmdir()
    (folder.outbox / "o1").symlink_to(tmp_path / "o1")
    assert "not a folder" in refusal(folder, "secret")
    (folder.outbox / "o1").unlink()
    folder.outbox.rmdir()
    folder.outbox.symlink_to(tmp_path)
    assert "not a folder" in refusal(folder, "secret")


def test_a_second_name_of_a_file_is_refused(folder: SessionFolder, tmp_path: Path) -> None:
    """It could be anybody's."""
    (tmp_path / "secret").write_bytes(b"secret")
    os.link(tmp_path / "secret", outbox(folder) / "a")
    assert "other names" in refusal(folder, "a")


def test_a_pipe_does_not_block(folder: SessionFolder) -> None:
    """Nor does anything else that is no file."""
    here = outbox(folder)
    os.mkfifo(here / "pipe")
    (here / "folder").mkdir()
    with directories.opened(here) as opened, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{opened}/socket")
    started = time.monotonic()
    for name in ("pipe", "folder", "socket"):
        assert "not a regular file" in refusal(folder, name)
    assert time.monotonic() - started < 5


def test_clearing_removes_the_messages_folder_only(folder: SessionFolder) -> None:
    """With everything in it; links are removed, not followed."""
    (outbox(folder) / "a").write_bytes(b"x")
    (outbox(folder) / "deep" / "er").mkdir(parents=True)
    (outbox(folder) / "deep" / "er" / "b").write_bytes(b"x")
    (outbox(folder) / "link").symlink_to(folder.host)
    (outbox(folder, "o2") / "c").write_bytes(b"x")
    assert clear_outbox(folder, "o1") is None
    assert names(folder.outbox) == ["o2"]
    assert names(folder.outbox / "o2") == ["c"]
    assert names(folder.host) == ["inbound.db", "inbox"]
    assert clear_outbox(folder, "o1") is None


def test_clearing_follows_no_link(folder: SessionFolder, tmp_path: Path) -> None:
    """What it leads to stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    (folder.outbox / "o1").symlink_to(tmp_path / "precious")
    assert clear_outbox(folder, "o1") is None
    assert names(folder.outbox) == []
    folder.outbox.rmdir()
    folder.outbox.symlink_to(tmp_path)
    assert "not a folder" in str(clear_outbox(folder, "precious"))
    assert (tmp_path / "precious" / "file").read_text() == "precious"


@pytest.mark.parametrize("message", ["..", ".", "", "../host", "a/b"])
def test_clearing_never_leaves_the_outbox(folder: SessionFolder, message: str) -> None:
    """An id that leads elsewhere names no folder."""
    assert clear_outbox(folder, message) is None
    assert names(folder.root) == ["host", "workspace"]
    assert "outbox" in names(folder.workspace)


def test_a_very_deep_folder_is_cleared(folder: SessionFolder) -> None:
    """Deeper than recursion, open files or the length of a path allow."""
    here = os.open(outbox(folder), os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 100, dir_fd=here)
        inner = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    assert clear_outbox(folder, "o1") is None
    assert names(folder.outbox) == []


# Heartbeat


def test_the_heartbeat_is_the_time_of_its_file(folder: SessionFolder) -> None:
    """None before the first one."""
    assert heartbeat_ms(folder) is None
    folder.heartbeat.touch()
    os.utime(folder.heartbeat, ns=(0, 1_772_368_496_789_999_999))
    assert heartbeat_ms(folder) == 1_772_368_496_789
    clear_heartbeat(folder)
    assert heartbeat_ms(folder) is None


def test_a_heartbeat_that_is_no_file_is_none(folder: SessionFolder, tmp_path: Path) -> None:
    """A link to a file that others touch is no sign of life; a new start removes whatever is there."""
    folder.heartbeat.symlink_to(tmp_path)
    assert heartbeat_ms(folder) is None
    clear_heartbeat(folder)
    (folder.heartbeat / "deep").mkdir(parents=True)
    assert heartbeat_ms(folder) is None
    clear_heartbeat(folder)
    assert ".heartbeat" not in names(folder.workspace)
    clear_heartbeat(folder)


def test_a_missing_workspace_has_no_heartbeat(tmp_path: Path) -> None:
    """Asking raises nothing."""
    assert heartbeat_ms(SessionFolder(tmp_path / "none")) is None
