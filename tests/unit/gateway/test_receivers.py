"""Receivers start, fail, come back and stop each on its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nanotasks.channels.contract import Adapter, Capabilities, HttpAnswer, HttpRequest
from nanotasks.errors import ConflictError
from nanotasks.gateway import receivers
from nanotasks.gateway.receivers import Receivers
from nanotasks.settings import Settings
from nanotasks.testing import RecordingAccept


class Plain:
    """A receiver of plain functions, which takes requests and fails as often as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.done: list[str] = []

    def start(self, _accept: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.done.append("start")

    def stop(self) -> None:
        self.done.append("stop")

    def handle(self, _request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, {})


class Coroutines:
    """A receiver of coroutines that cannot take requests and does not stop cleanly."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def start(self, _accept: Any) -> None:
        self.done.append("start")

    async def stop(self) -> None:
        raise OSError("already gone")


def adapter(name: str, receiver: Any, on: bool) -> Adapter:
    return Adapter(name, lambda _s: Capabilities(), receiver=lambda _s: receiver, enabled=lambda _s: on)


def made(on: bool = True, **by_name: Any) -> Receivers:
    adapters = {name: adapter(name, receiver, on) for name, receiver in by_name.items()}
    return Receivers(Settings(), adapters, RecordingAccept())


def test_plain_and_asynchronous_receivers_work_alike() -> None:
    """And one that does not stop cleanly keeps no other from stopping."""

    async def scene() -> None:
        plain, other = Plain(), Coroutines()
        group = made(other=other, plain=plain)
        await group.start()
        assert group.states == {"other": "open", "plain": "open"}
        assert group.http("plain") is plain
        assert group.http("other") is None
        assert group.http("unknown") is None
        await group.stop()
        assert (plain.done, other.done) == (["start", "stop"], ["start"])

    asyncio.run(scene())


def test_a_channel_that_is_off_is_not_made() -> None:
    """Nor is one without a receiver."""
    group = made(on=False, plain=Plain())
    asyncio.run(group.start())
    assert group.states == {}


def test_a_receiver_that_cannot_start_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the configuration causes is left; what may pass is tried again, and takes nothing until then."""
    monkeypatch.setattr(receivers, "_PAUSES_S", (0.01,))

    async def scene() -> None:
        taken, away, fine = Plain(ConflictError()), Plain(OSError(), OSError()), Plain()
        group = made(taken=taken, away=away, fine=fine)
        await group.start()
        assert group.states == {"taken": "failed", "away": "retrying", "fine": "open"}
        assert group.http("away") is None
        async with asyncio.timeout(5):
            while group.states["away"] != "open":
                await asyncio.sleep(0.01)
        await group.stop()
        assert (taken.done, away.done) == ([], ["start", "stop"])

    asyncio.run(scene())
