"""The file channel's journal: whole lines only, each delivery once, whatever is killed when."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nanotasks.channels.conformance import outbound
from nanotasks.channels.contract import DestinationError, OutboundFile, TransientError
from nanotasks.channels.file.sender import TAIL_BYTES, FileSender
from nanotasks.testing import wait_for


@pytest.fixture
def sender(tmp_path: Path) -> FileSender:
    """A sender to an empty folder."""
    return FileSender(tmp_path)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_everything_a_reader_needs(sender: FileSender, tmp_path: Path) -> None:
    """One object per line; files by their path below the folder."""
    sent = sender.send(outbound("d-1", "hello", files=[OutboundFile("a.txt", b"x")]), 5)
    [line] = lines(tmp_path / "chat-1.jsonl")
    assert sent.platform_message_id == "d-1"
    assert line.pop("at")
    assert line == {
        "delivery_id": "d-1",
        "platform_id": "chat-1",
        "thread_id": None,
        "kind": "chat",
        "content": {"text": "hello", "files": ["a.txt"]},
        "files": ["files/d-1/a.txt"],
    }


@pytest.mark.parametrize("torn", ['{"delivery_id":"d-1","at":"2026', "{", "\0\0\0\0", '"text"', "é"[:1] + "\ufffd"])
def test_a_torn_last_line_is_cut_off(sender: FileSender, tmp_path: Path, torn: str) -> None:
    """It was never acknowledged, so its delivery comes again; the lines before it stay."""
    path = tmp_path / "chat-1.jsonl"
    sender.send(outbound("d-0"), 5)
    with path.open("a") as stream:
        stream.write(torn)
    sender.send(outbound("d-1", attempt=2), 5)
    assert [line["delivery_id"] for line in lines(path)] == ["d-0", "d-1"]


def test_a_whole_line_without_its_newline_counts(sender: FileSender, tmp_path: Path) -> None:
    """Only the newline was lost."""
    path = tmp_path / "chat-1.jsonl"
    sender.send(outbound("d-1"), 5)
    os.truncate(path, path.stat().st_size - 1)
    sender.send(outbound("d-1", attempt=2), 5)
    sender.send(outbound("d-2"), 5)
    assert [line["delivery_id"] for line in lines(path)] == ["d-1", "d-2"]


def test_a_later_attempt_finds_its_line_however_far_back(sender: FileSender, tmp_path: Path) -> None:
    """Also across the borders of what is read at once."""
    sender.send(outbound("d-0"), 5)
    filler = "x" * (TAIL_BYTES // 2)
    for number in range(40):
        sender.send(outbound(f"f-{number}", filler), 5)
    for number in (0, 17, 39):
        sender.send(outbound(f"f-{number}", filler, attempt=3), 5)
    sender.send(outbound("d-0", attempt=2), 5)
    assert len(lines(tmp_path / "chat-1.jsonl")) == 41


def test_an_id_in_the_text_is_not_a_line(sender: FileSender, tmp_path: Path) -> None:
    """What agents write cannot make a delivery look done."""
    for attempt, delivery_id in ((1, "d-1"), (2, "d-2")):
        forged = f'{{"delivery_id":"{delivery_id}","at"'
        sender.send(outbound(f"other-{attempt}", forged), 5)
        sender.send(outbound(delivery_id, attempt=attempt), 5)
    assert len(lines(tmp_path / "chat-1.jsonl")) == 4


def test_one_id_may_begin_like_another(sender: FileSender, tmp_path: Path) -> None:
    """`d-1` is not `d-10`."""
    sender.send(outbound("d-10"), 5)
    sender.send(outbound("d-1", attempt=2), 5)
    assert len(lines(tmp_path / "chat-1.jsonl")) == 2


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_only_a_plain_file_is_written(sender: FileSender, tmp_path: Path, kind: str) -> None:
    """Nothing is written through a link; a pipe without a reader holds up nobody."""
    path, outside = tmp_path / "chat-1.jsonl", tmp_path / "outside"
    outside.touch()
    match kind:
        case "link":
            path.symlink_to(outside)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with pytest.raises(DestinationError):
        sender.send(outbound("d-1"), 5)
    assert outside.read_text() == ""


def test_a_full_disk_leaves_no_half_line(sender: FileSender, tmp_path: Path) -> None:
    """What fitted is taken back, and the message is sent again later. The limit on a file's size plays the disk."""
    path = tmp_path / "chat-1.jsonl"
    sender.send(outbound("d-0"), 5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, limits[1]))
    try:
        with pytest.raises(TransientError, match="cannot be written"):
            sender.send(outbound("d-1"), 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(lines(path)) == 1
    sender.send(outbound("d-1", attempt=2), 5)
    assert len(lines(path)) == 2


WRITER = """
import sys
from pathlib import Path
from nanotasks.channels.conformance import outbound
from nanotasks.channels.file.sender import FileSender
sender, text = FileSender(Path(sys.argv[1])), "x" * 3000
for number in range(10_000):
    sender.send(outbound(f"{sys.argv[2]}-{number}", text), 30)
    print(number, flush=True)
"""


def test_killed_writers_leave_a_file_that_reads(tmp_path: Path) -> None:
    """kill -9 in the middle of writing: what was acknowledged is there once, and every line is whole."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name], stdout=subprocess.PIPE)
        for name in ("a", "b")
    ]
    path = tmp_path / "chat-1.jsonl"
    wait_for(lambda: path.exists() and path.stat().st_size > 400_000, 30, what="lines were written")
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    acknowledged = set()
    for name, writer in zip(("a", "b"), writers, strict=True):
        out, _ = writer.communicate()
        acknowledged |= {f"{name}-{number.decode()}" for number in out.split(b"\n")[:-1]}
    FileSender(tmp_path).send(outbound("last"), 5)
    written = [str(line["delivery_id"]) for line in lines(path)]
    assert len(written) == len(set(written))
    assert acknowledged <= set(written)
