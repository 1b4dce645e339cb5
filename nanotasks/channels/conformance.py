"""What every channel adapter must do, as tests: subclass `ChannelConformance` and give it your channel.

    class TestMyChannel(ChannelConformance):
        @pytest.fixture
        def channel(self, tmp_path: Path) -> Iterator[ChannelUnderTest]:
            yield MyChannelUnderTest(...)

The suite talks to the sender and the receiver of the adapter itself; the platform behind it, real or played, is the
subclass's: it shows what arrived, and can be made to fail.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from nanotasks.channels.contract import (
    Adapter,
    Address,
    OutboundFile,
    OutboundMessage,
    PermanentError,
    Sender,
    SendError,
    Sent,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.errors import DependencyDownError, NanotasksError, TooManyError
from nanotasks.settings import Settings

DEADLINE_S = 1.0
UNSAFE_NAMES = ("../../escape.txt", "a/b.txt", "..", "", "x\0y", "/etc/passwd", ".hidden", "n" * 300, "back\\slash")


@dataclass(frozen=True)
class Shown:
    """One message as the platform shows it."""

    platform_id: str
    text: str
    files: tuple[tuple[str, bytes], ...] = ()


class ChannelUnderTest(ABC):
    """An adapter, and the platform behind it."""

    adapter: Adapter
    settings: Settings
    platform_ids: Sequence[str] = ("chat-1", "chat-2")

    @abstractmethod
    def shown(self) -> list[Shown]:
        """Every message that the platform shows now, oldest first."""

    def failing(self) -> dict[type[SendError], AbstractContextManager[None]]:
        """Ways to make the platform fail, by the error that the sender must raise meanwhile."""
        return {}

    def hanging(self) -> AbstractContextManager[None] | None:
        """A way to make the platform not answer, or None when it always does."""
        return None

    def start(self, accept: Any) -> None:
        """Start the receiver; only for an adapter that has one."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop the receiver."""
        raise NotImplementedError

    def say(self, message_id: str, text: str) -> str:
        """A user says something: `taken`, `again` when the platform was told to send it again, or `refused`."""
        raise NotImplementedError


def outbound(
    delivery_id: str,
    text: str = "hello",
    *,
    platform_id: str = "chat-1",
    channel_type: str = "test",
    attempt: int = 1,
    files: Sequence[OutboundFile] = (),
) -> OutboundMessage:
    """A message on its way out."""
    content = {"text": text, "files": [file.name for file in files]} if files else {"text": text}
    return OutboundMessage(delivery_id, attempt, Address(channel_type, platform_id), content, files=tuple(files))


def send(sender: Sender, message: OutboundMessage, deadline_s: float = 5.0) -> Sent:
    """Call a plain or an asynchronous sender."""
    result = sender.send(message, deadline_s)
    if inspect.isawaitable(result):
        import asyncio

        async def wait() -> Sent:
            return await result

        return asyncio.run(wait())
    return result


class ChannelConformance:
    """The suite. Every test gets a fresh `channel` fixture."""

    def sender(self, channel: ChannelUnderTest) -> Sender:
        """A sender as a new worker process would make it."""
        assert channel.adapter.sender is not None
        return channel.adapter.sender(channel.settings)

    def test_declares_what_it_can_do(self, channel: ChannelUnderTest) -> None:
        """Capabilities depend on the settings alone, and the adapter has at least one half."""
        assert channel.adapter.capabilities(channel.settings) == channel.adapter.capabilities(channel.settings)
        assert channel.adapter.sender or channel.adapter.receiver
        assert channel.adapter.enabled(channel.settings)

    def test_a_message_is_shown_once_in_its_chat(self, channel: ChannelUnderTest) -> None:
        """Text arrives as it is, also what other formats would have to escape."""
        text = 'Grüße, "quotes", \\slashes\\ & <tags>\nand a second line 🙂'
        first, second = channel.platform_ids[:2]
        sender = self.sender(channel)
        send(sender, outbound("d-1", text, platform_id=first))
        send(sender, outbound("d-2", "other", platform_id=second))
        assert channel.shown() == [Shown(first, text), Shown(second, "other")]

    def test_messages_keep_their_order(self, channel: ChannelUnderTest) -> None:
        """What is sent one after the other is shown so."""
        sender = self.sender(channel)
        for number in range(10):
            send(sender, outbound(f"d-{number}", str(number)))
        assert [message.text for message in channel.shown()] == [str(number) for number in range(10)]

    def test_sending_twice_shows_once_where_that_is_promised(self, channel: ChannelUnderTest) -> None:
        """An idempotent channel knows a delivery again: at once, from another process, and as a later attempt."""
        if not channel.adapter.capabilities(channel.settings).idempotent:
            pytest.skip("the channel promises no idempotency")
        first = send(self.sender(channel), outbound("d-1"))
        again = send(self.sender(channel), outbound("d-1"))
        later = send(self.sender(channel), outbound("d-1", attempt=2))
        assert len(channel.shown()) == 1
        assert first == again == later

    def test_many_workers_may_send_at_the_same_time(self, channel: ChannelUnderTest) -> None:
        """Nothing is lost, doubled or mixed."""
        senders = [self.sender(channel) for _ in range(4)]

        def work(number: int) -> None:
            send(senders[number % 4], outbound(f"d-{number}", f"text {number}"))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(24)))
        assert sorted(message.text for message in channel.shown()) == sorted(f"text {n}" for n in range(24))

    def test_files_arrive(self, channel: ChannelUnderTest) -> None:
        """Bytes and harmless names arrive unchanged."""
        if not channel.adapter.capabilities(channel.settings).supports_files:
            pytest.skip("the channel has no files")
        files = (OutboundFile("report.txt", b"one\ntwo"), OutboundFile("bild ü.png", bytes(range(256))))
        send(self.sender(channel), outbound("d-1", "see", files=files))
        [message] = channel.shown()
        assert message.files == (("report.txt", b"one\ntwo"), ("bild ü.png", bytes(range(256))))

    def test_unsafe_file_names_do_no_harm(self, channel: ChannelUnderTest) -> None:
        """A name that points elsewhere cannot make a file there; the bytes arrive all the same."""
        if not channel.adapter.capabilities(channel.settings).supports_files:
            pytest.skip("the channel has no files")
        files = [OutboundFile(name, f"bytes {number}".encode()) for number, name in enumerate(UNSAFE_NAMES)]
        send(self.sender(channel), outbound("d-1", "see", files=files))
        [message] = channel.shown()
        assert [data for _, data in message.files] == [file.data for file in files]
        assert not list(channel.settings.data_dir.parent.rglob("escape.txt"))

    def test_a_hanging_platform_ends_with_the_deadline(self, channel: ChannelUnderTest) -> None:
        """The send is over in time, and says whether the message may have arrived."""
        hanging = channel.hanging()
        if hanging is None:
            pytest.skip("the platform cannot hang")
        sender = self.sender(channel)
        with hanging:
            started = time.monotonic()
            with pytest.raises((TransientError, UnknownOutcomeError)):
                send(sender, outbound("d-1"), DEADLINE_S)
            assert time.monotonic() - started < DEADLINE_S + 1.0

    def test_failures_have_their_class(self, channel: ChannelUnderTest) -> None:
        """Each kind of failure raises its error, and the next send works again."""
        sender = self.sender(channel)
        for number, (kind, failing) in enumerate(channel.failing().items()):
            with failing, pytest.raises(kind) as caught:
                send(sender, outbound(f"d-{number}"))
            assert type(caught.value) is kind
            assert not _secrets(channel.settings, str(caught.value))
            if kind not in {PermanentError, UnknownOutcomeError}:
                send(sender, outbound(f"d-{number}", attempt=2))

    def test_typing_is_harmless(self, channel: ChannelUnderTest) -> None:
        """The typing indicator never raises and never counts as a message."""
        sender: Any = self.sender(channel)
        if not channel.adapter.capabilities(channel.settings).supports_typing:
            pytest.skip("the channel has no typing indicator")
        sender.set_typing(Address(channel.adapter.channel_type, "chat-1"))
        assert channel.shown() == []

    def test_what_is_said_is_accepted(self, channel: ChannelUnderTest, accept: Any) -> None:
        """A message reaches intake once, with its id, chat and text, also when the platform sends it again."""
        self._receive(channel, accept)
        assert channel.say("m-1", "hello") == "taken"
        assert channel.say("m-1", "hello") == "taken"
        [message] = accept.messages
        assert (message.message_id, message.address.platform_id) == ("m-1", "chat-1")
        assert message.address.channel_type == channel.adapter.channel_type
        assert message.content["text"] == "hello"

    @pytest.mark.parametrize(
        "failure",
        [DependencyDownError("no database"), TooManyError("full", retry_after_s=0.1), RuntimeError("unforeseen")],
        ids=lambda failure: type(failure).__name__,
    )
    def test_what_was_not_stored_is_sent_again(
        self, channel: ChannelUnderTest, accept: Any, failure: Exception
    ) -> None:
        """Only a commit makes a message taken; until then the platform is told to send it again."""
        self._receive(channel, accept)
        accept.failure = failure
        assert channel.say("m-1", "hello") == "again"
        accept.failure = None
        assert channel.say("m-1", "hello") == "taken"
        assert len(accept.messages) == 1

    def test_a_refused_message_is_not_sent_again(self, channel: ChannelUnderTest, accept: Any) -> None:
        """A message that can never be stored is the sender's to mend."""
        from nanotasks.errors import InvalidError

        self._receive(channel, accept)
        accept.failure = InvalidError("bad")
        assert channel.say("m-1", "hello") == "refused"

    def test_a_receiver_stops_and_starts(self, channel: ChannelUnderTest, accept: Any) -> None:
        """After a stop nothing is taken; after a start it is."""
        self._receive(channel, accept)
        channel.stop()
        try:
            assert channel.say("m-1", "hello") == "again"
        except (OSError, NanotasksError):
            pass  # Nobody listens, which a platform understands too.
        assert accept.messages == []
        channel.start(accept)
        assert channel.say("m-1", "hello") == "taken"

    def _receive(self, channel: ChannelUnderTest, accept: Any) -> None:
        if channel.adapter.receiver is None:
            pytest.skip("the channel receives nothing by itself")
        channel.start(accept)


def _secrets(settings: Settings, text: str) -> list[str]:
    from dataclasses import fields

    values = [getattr(settings, spec.name) for spec in fields(settings) if spec.metadata["secret"]]
    return [value for value in values if value and value in text]
