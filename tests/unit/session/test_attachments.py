"""Attachments leave a message's content and become files; a message is never lost over one."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from nanotasks.session import SessionFolder
from nanotasks.session.attachments import extract_attachments
from tests.unit.session.conftest import files_of_at_most, names

NOW = 1_772_368_496_789
CASES = json.loads((Path(__file__).parents[2] / "data" / "names.json").read_text())["cases"]


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def content(*attachments: Any) -> str:
    return json.dumps({"text": "look", "attachments": attachments})


def extracted(folder: SessionFolder, *attachments: Any, message: str = "m1") -> list[dict[str, Any]]:
    result = extract_attachments(folder, message, content(*attachments), NOW)
    assert result.refused == ()
    parsed = json.loads(result.content)
    assert parsed["text"] == "look"
    return list(parsed["attachments"])


def test_data_becomes_a_file(folder: SessionFolder) -> None:
    """The attachment keeps what else it has, and says where the file is."""
    (found,) = extracted(folder, {"name": "a.pdf", "mimeType": "application/pdf", "data": encoded(b"%PDF")})
    assert found == {"name": "a.pdf", "mimeType": "application/pdf", "localPath": "inbox/m1/a.pdf"}
    assert (folder.inbox / "m1" / "a.pdf").read_bytes() == b"%PDF"


def test_a_blob_becomes_a_file(folder: SessionFolder) -> None:
    """Its bytes come from the caller."""
    blobs = {"blob-1": b"bytes"}
    result = extract_attachments(folder, "m1", content({"name": "a", "blobId": "blob-1"}), NOW, blobs.get)
    assert json.loads(result.content)["attachments"] == [{"name": "a", "localPath": "inbox/m1/a"}]
    assert (folder.inbox / "m1" / "a").read_bytes() == b"bytes"


def test_a_blob_that_is_gone_is_reported(folder: SessionFolder) -> None:
    """The message goes on with its other attachments."""
    text = content({"name": "gone", "blobId": "blob-1"}, {"name": "here", "data": encoded(b"x")})
    empty: dict[str, bytes] = {}
    for blob in (None, empty.get):
        result = extract_attachments(folder, "m1", text, NOW, blob)
        assert [(one.name, one.reason) for one in result.refused] == [("gone", "Its bytes are gone.")]
        first, second = json.loads(result.content)["attachments"]
        assert first == {"name": "gone", "blobId": "blob-1"}
        assert second == {"name": "here", "localPath": "inbox/m1/here"}


@pytest.mark.parametrize(
    "case",
    [one for one in CASES if one["fn"] == "derive_attachment_name" and "js_prototype_key" not in one.get("tags", [])],
    ids=lambda case: str(case["input"]),
)
def test_recorded_names(folder: SessionFolder, case: dict[str, Any]) -> None:
    """An attachment without a name is called by NanoClaw 2's rule, after the message's time."""
    (found,) = extracted(folder, {**case["input"], "data": encoded(b"x")})
    assert found["name"] == case["out"].replace("<TS>", str(NOW))


@pytest.mark.parametrize("unsafe", ["../../etc/passwd", "..", "a/b", "a\\b", "a\0b"])
def test_an_unsafe_name_is_replaced(folder: SessionFolder, unsafe: str) -> None:
    """The bytes are kept under a name of ours."""
    (found,) = extracted(folder, {"name": unsafe, "data": encoded(b"x")})
    assert found == {"name": f"attachment-{NOW}", "localPath": f"inbox/m1/attachment-{NOW}"}


def test_half_a_surrogate_pair_in_a_name(folder: SessionFolder) -> None:
    """JSON can spell it, a file system not, and a database neither."""
    result = extract_attachments(
        folder, "m1", r'{"attachments":[{"name":"\ud83d","data":"eA=="}],"text":"\ud83d"}', NOW
    )
    assert json.loads(result.content)["attachments"][0]["name"] == f"attachment-{NOW}"
    assert result.content.encode()


def test_a_name_that_is_too_long_keeps_its_extension(folder: SessionFolder) -> None:
    """It is cut to what a file system takes."""
    (found,) = extracted(folder, {"name": "日" * 200 + ".pdf", "data": encoded(b"x")})
    assert found["name"] == "日" * 40 + ".pdf"


def test_equal_names_are_told_apart(folder: SessionFolder) -> None:
    """The second is numbered before its extension; none is lost."""
    found = extracted(
        folder,
        *({"name": "photo.jpg", "data": encoded(data)} for data in (b"1", b"2", b"1")),
        {"data": ""},
        {"data": "eA"},
    )
    assert [one["name"] for one in found] == [
        "photo.jpg",
        "photo-2.jpg",
        "photo-3.jpg",
        f"attachment-{NOW}",
        f"attachment-{NOW}-2",
    ]
    assert [(folder.inbox / "m1" / one["name"]).read_bytes() for one in found] == [b"1", b"2", b"1", b"", b"x"]


def test_extracting_again_gives_the_same(folder: SessionFolder) -> None:
    """An append that is repeated after a crash stores nothing twice."""
    attachments = [{"name": "a", "data": encoded(b"1")}, {"name": "a", "data": encoded(b"2")}, {"data": encoded(b"3")}]
    assert extracted(folder, *attachments) == extracted(folder, *attachments)
    assert len(names(folder.inbox / "m1")) == 3


def test_a_message_id_with_slashes_gets_its_files(folder: SessionFolder) -> None:
    """NanoClaw 2 left them in the database."""
    (found,) = extracted(folder, {"name": "a", "data": encoded(b"x")}, message="spaces/A/messages/B")
    assert (folder.workspace / found["localPath"]).read_bytes() == b"x"


def test_base64_is_read_as_javascript_reads_it(folder: SessionFolder) -> None:
    """Either alphabet, line breaks, no padding."""
    data = bytes(range(256))
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    found = extracted(folder, {"name": "a", "data": url_safe[:100] + "\n" + url_safe[100:]})
    assert (folder.workspace / found[0]["localPath"]).read_bytes() == data


def test_what_is_in_the_way_is_not_overwritten(folder: SessionFolder) -> None:
    """The attachment keeps its data, and the message goes on."""
    (folder.inbox / "m1").mkdir()
    (folder.inbox / "m1" / "a").symlink_to(folder.inbound_db)
    text = content({"name": "a", "data": encoded(b"x")})
    result = extract_attachments(folder, "m1", text, NOW)
    assert result.content == text
    assert [one.name for one in result.refused] == ["a"]


def test_a_name_that_the_file_system_does_not_take_holds_up_no_message(
    folder: SessionFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted folders take 143 bytes, and some file systems no name that is no text: no later try mends that."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    monkeypatch.setattr(os, "rename", refuse)
    text = content({"name": "a", "data": encoded(b"x")})
    result = extract_attachments(folder, "m1", text, NOW)
    assert (result.content, [one.name for one in result.refused]) == (text, ["a"])


def test_an_attachment_is_not_left_out_because_the_disk_is_full(folder: SessionFolder) -> None:
    """The whole message waits until there is room, or its bytes would be gone for ever."""
    text = content({"name": "a", "data": encoded(b"x" * 200_000)})
    with pytest.raises(OSError), files_of_at_most(100_000):
        extract_attachments(folder, "m1", text, NOW)
    assert extract_attachments(folder, "m1", text, NOW).refused == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        '"attachments"',
        "[" * 100_000 + '"attachments"',
        '["attachments"]',
        '{"attachments": null}',
        '{"attachments": {"data": "eA=="}}',
        '{"attachments": [null, 1, "x", {}, {"data": 5}, {"data": null, "blobId": null}]}',
        '{"text": "attachments",   "spaced":1}',
    ],
)
def test_other_content_is_left_as_it_is(folder: SessionFolder, text: str) -> None:
    """Byte for byte."""
    assert extract_attachments(folder, "m1", text, NOW).content == text
    assert names(folder.inbox) == []


def test_text_beside_attachments_stays_readable(folder: SessionFolder) -> None:
    """Letters of any script are stored as they are."""
    text = json.dumps({"text": "日本 ü", "attachments": [{"name": "a", "data": "eA=="}]})
    assert "日本 ü" in extract_attachments(folder, "m1", text, NOW).content
