"""The parts of the terminal channel that decide by themselves: names in a text, and what a client is passed."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from nanotasks.central import Database, mailbox
from nanotasks.central.mailbox import Letter
from nanotasks.channels.terminal import postman
from nanotasks.channels.terminal.addressing import names_somebody
from nanotasks.channels.terminal.protocol import decode, encode
from nanotasks.channels.terminal.tray import WINDOW, Tray
from nanotasks.channels.terminal.wire import Wire
from nanotasks.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("@andy", True),
        ("@Andy, hello", True),
        ("hello @ANDY!", True),
        ("(@andy)", True),
        ("@dr. bob can you", True),  # a name of two words
        ("andy", False),
        ("@and", False),
        ("@andyx", False),
        ("me@andy", False),  # an address is no mention
        ("@@andy", True),
        ("@a.b", True),  # characters that mean something in patterns
        ("@axb", False),
        ("@", False),
        ("", False),
    ],
)
def test_a_mention_is_an_at_sign_and_a_whole_name(text: str, named: bool) -> None:
    """In any case, and nowhere inside a word."""
    assert names_somebody(text, {"Andy", "Dr. Bob", "a.b", ""}) is named


def test_nobody_is_named_where_nobody_is() -> None:
    """No names, no mention."""
    assert not names_somebody("@andy", set())


def letter(item: int, delivery_id: str = "", text: str = "x") -> Letter:
    return Letter(item, delivery_id or f"d-{item}", "local", "chat", {"text": text}, [], 0, None)


class Peer:
    """The other end of a tray's wire, on a socket pair."""

    def __init__(self) -> None:
        self.here, self._there = socket.socketpair()

    async def tray(self) -> Tray:
        _, writer = await asyncio.open_unix_connection(sock=self._there)
        self.wire = Wire(writer)
        return Tray(self.wire)

    def items(self) -> list[int]:
        self.here.setblocking(False)
        received = b""
        try:
            while chunk := self.here.recv(1 << 20):
                received += chunk
        except BlockingIOError:
            pass
        return [json.loads(line)["item"] for line in received.splitlines()]

    async def close(self) -> None:
        await self.wire.close()
        self.here.close()


def test_a_letter_is_passed_once() -> None:
    """However often it is offered, confirmed or not; a number that comes again for another delivery is a new letter."""

    async def scene() -> None:
        peer = Peer()
        tray = await peer.tray()
        for offered in (letter(1), letter(1), letter(2)):
            tray.offer(offered)
        assert peer.items() == [1, 2]
        assert tray.confirm([1, 99]) == {1}
        assert tray.confirm([1]) == set()
        tray.offer(letter(1))
        assert peer.items() == []
        tray.offer(letter(1, "d-other"))
        assert peer.items() == [1]
        await peer.close()

    asyncio.run(scene())


def test_a_client_that_confirms_nothing_gets_no_more_than_the_window() -> None:
    """And the rest once it has."""

    async def scene() -> None:
        peer = Peer()
        tray = await peer.tray()
        passed: list[int] = []
        for item in range(WINDOW + 10):
            tray.offer(letter(item))
            passed += peer.items()
        assert len(passed) == WINDOW
        tray.confirm([0, 1])
        assert tray.wants(WINDOW, f"d-{WINDOW}")
        await peer.close()

    asyncio.run(scene())


def test_a_client_that_does_not_read_gets_no_more() -> None:
    """Its letters stay in the mailbox instead of in our memory, and it cannot keep the connection open."""

    async def scene() -> None:
        peer = Peer()
        tray = await peer.tray()
        for item in range(100):
            tray.offer(letter(item, text="x" * 100_000))
        assert not tray.wants(1000, "d-1000")
        await peer.close()

    asyncio.run(scene())


def test_frames_are_lines() -> None:
    """Whatever the text holds."""
    line = encode("message", {"text": "a\nb\u2028c\ud800"})
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert decode(b'{"text": "x"}') == ("message", {"text": "x"})
    with pytest.raises(InvalidError, match="'accepted'"):
        decode(b'{"type": "accepted"}')


def test_a_chat_that_takes_no_more_letters_keeps_none_from_the_others(
    sqlite_central: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many wait there: only chats with room are asked for."""
    with sqlite_central.write_core() as connection:
        for chat, number in (("deaf", 2 * WINDOW), ("local", 1)):
            for item in range(number):
                mailbox.put(
                    connection,
                    channel_type="terminal",
                    platform_id=chat,
                    thread_id=None,
                    delivery_id=f"{chat}-{item}",
                    kind="chat",
                    content={"text": "x"},
                    files=[],
                    now=1,
                )

    async def scene() -> None:
        man = postman.Postman(sqlite_central, lambda _chat: None)
        deaf, here = Peer(), Peer()
        tray = await deaf.tray()
        await man.join("deaf", tray, lambda _waiting: None)
        assert not tray.has_room
        await man.join("local", await here.tray(), lambda _waiting: None)
        assert here.items() == [2 * WINDOW + 1]
        await deaf.close()
        await here.close()

    monkeypatch.setattr(postman, "_UNSHOWN_LIMIT", WINDOW)
    asyncio.run(scene())
