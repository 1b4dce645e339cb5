"""The typing indicator, by the clock of the test."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from nanotasks.channels.contract import Address, Capabilities
from nanotasks.deliver.typing import TypingIndicator
from nanotasks.testing import ScriptedSender, channel_of, wait_for
from tests.scene import Speaker, Stage

NOW = 1000.0


class TypingSender(ScriptedSender):
    """Remembers in which chats typing was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.typed: list[Address] = []
        self.broken = False

    async def set_typing(self, address: Address) -> None:
        self.typed.append(address)
        if self.broken:
            raise ConnectionError("no")


@pytest.fixture
def channel() -> Iterator[TypingSender]:
    sender = TypingSender()
    with channel_of(sender, "scripted", Capabilities(supports_typing=True)):
        yield sender


@pytest.fixture
def indicator(stage: Stage, channel: TypingSender) -> TypingIndicator:
    return TypingIndicator(stage.settings)


def begun(speaker: Speaker, platform_id: str = "family", **more: Any) -> dict[str, Any]:
    address = {"channel_type": "scripted", "platform_id": platform_id, "thread_id": None}
    return {"begun": speaker.id, "agent_group_id": speaker.agent_id, **address, **more}


def shown(indicator: TypingIndicator, channel: TypingSender, at: float) -> int:
    """How often typing has been shown once the indicator was asked at a time."""
    indicator.tick(at)
    assert indicator._pool.finish(10)
    return len(channel.typed)


def beat(speaker: Speaker, age_s: float = 0.0) -> None:
    """A heartbeat of an age."""
    heartbeat = speaker.folder.workspace / ".heartbeat"
    heartbeat.touch()
    os.utime(heartbeat, (time.time() - age_s,) * 2)


def test_it_begins_at_once_and_is_refreshed(indicator: TypingIndicator, channel: TypingSender, andy: Speaker) -> None:
    """Every four seconds, for fifteen without any sign of life."""
    indicator.poked(begun(andy), NOW)
    assert shown(indicator, channel, NOW) == 1
    assert channel.typed == [Address("scripted", "family")]
    assert shown(indicator, channel, NOW + 3.9) == 1
    assert shown(indicator, channel, NOW + 4.0) == 2
    assert shown(indicator, channel, NOW + 14.9) == 3
    assert shown(indicator, channel, NOW + 19.0) == 3
    beat(andy)
    assert shown(indicator, channel, NOW + 60.0) == 3


def test_it_goes_on_with_the_heartbeat(indicator: TypingIndicator, channel: TypingSender, andy: Speaker) -> None:
    """As long as that is younger than six seconds."""
    indicator.poked(begun(andy), NOW)
    beat(andy)
    assert shown(indicator, channel, NOW + 100) == 1
    beat(andy, age_s=7)
    assert shown(indicator, channel, NOW + 104) == 1
    beat(andy)
    assert shown(indicator, channel, NOW + 108) == 1


def test_it_pauses_after_a_delivery(indicator: TypingIndicator, channel: TypingSender, andy: Speaker) -> None:
    """For ten seconds; a new message ends the pause."""
    indicator.poked(begun(andy), NOW)
    beat(andy)
    assert shown(indicator, channel, NOW) == 1
    indicator.poked({"delivered": andy.id}, NOW + 1)
    assert shown(indicator, channel, NOW + 4) == 1
    assert shown(indicator, channel, NOW + 8) == 1
    assert shown(indicator, channel, NOW + 12) == 2
    indicator.poked({"delivered": andy.id}, NOW + 12)
    indicator.poked(begun(andy, "work"), NOW + 13)
    assert shown(indicator, channel, NOW + 13) == 3
    assert channel.typed[-1] == Address("scripted", "work")


def test_it_ends_with_the_agent(indicator: TypingIndicator, channel: TypingSender, andy: Speaker) -> None:
    """At once, heartbeat or not."""
    indicator.poked(begun(andy), NOW)
    beat(andy)
    indicator.poked({"ended": andy.id}, NOW)
    assert shown(indicator, channel, NOW) == 0


def test_an_error_of_the_channel_is_swallowed(indicator: TypingIndicator, channel: TypingSender, andy: Speaker) -> None:
    """It is tried again at the next refresh."""
    channel.broken = True
    indicator.poked(begun(andy), NOW)
    assert shown(indicator, channel, NOW) == 1
    assert shown(indicator, channel, NOW + 4) == 2


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"begun": 7},
        {"begun": "sess-1"},
        {"begun": "../x", "agent_group_id": "a", "channel_type": "scripted", "platform_id": "p"},
        {"begun": "sess-1", "agent_group_id": "a", "channel_type": "nowhere", "platform_id": "p"},
        {"begun": "sess-1", "agent_group_id": "a", "channel_type": "file", "platform_id": "p"},
        {"delivered": "sess-nobody"},
        {"ended": None},
    ],
)
def test_what_is_not_understood_is_ignored(
    indicator: TypingIndicator, channel: TypingSender, payload: dict[str, Any]
) -> None:
    """Half a message, an unsafe id, a channel that has no typing."""
    indicator.poked(payload, NOW)
    assert shown(indicator, channel, NOW) == 0


def test_it_is_driven_by_pokes(stage: Stage, channel: TypingSender, andy: Speaker) -> None:
    """On the topic of its host, until it is stopped."""
    topics: list[str] = []

    def listen(names: Sequence[str], stop: threading.Event) -> Iterator[tuple[str, Mapping[str, Any]]]:
        topics.extend(names)
        yield names[0], {}
        yield names[0], begun(andy)
        stop.wait()

    stop = threading.Event()
    thread = threading.Thread(target=TypingIndicator(stage.settings, listen=listen).run, args=(stop,))
    thread.start()
    wait_for(lambda: channel.typed, what="typing is shown")
    stop.set()
    thread.join(10)
    assert topics == ["typing:here"]
