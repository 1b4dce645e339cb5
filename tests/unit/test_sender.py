"""The background sender: bounded, coalescing, patient, and never in the caller's way."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from nanotasks.sender import BackgroundSender, Unreachable


def test_items_leave_in_the_order_they_were_handed_over() -> None:
    """First in, first out."""
    sent: list[Hashable] = []
    sender = BackgroundSender(sent.append)
    for number in range(20):
        sender.put(number)
    assert sender.flush(5)
    assert sent == list(range(20))
    assert sender.counts.sent == 20


def test_an_item_that_waits_already_is_sent_once() -> None:
    """A signal handed over again before it left says nothing new."""
    gate = threading.Event()
    sent: list[Hashable] = []

    def send(item: Hashable) -> None:
        gate.wait(5)
        sent.append(item)

    sender = BackgroundSender(send)
    for item in ("first", "same", "same", "same"):
        sender.put(item)
    gate.set()
    assert sender.flush(5)
    assert sent.count("same") == 1


def test_the_oldest_goes_when_the_queue_is_full() -> None:
    """A full queue drops from its old end and counts it."""
    gate = threading.Event()
    entered = threading.Event()
    sent: list[Hashable] = []

    def send(item: Hashable) -> None:
        entered.set()
        gate.wait(5)
        sent.append(item)

    sender = BackgroundSender(send, limit=2)
    sender.put("in hand")
    assert entered.wait(5)
    for item in ("oldest", "b", "c"):
        sender.put(item)
    gate.set()
    assert sender.flush(5)
    assert sent == ["in hand", "b", "c"]
    assert sender.counts.dropped == 1


def test_an_unreachable_other_side_loses_nothing_and_keeps_the_order() -> None:
    """While the other side is away everything waits; when it is back everything leaves."""
    away = threading.Event()
    away.set()
    tried = threading.Event()
    sent: list[Hashable] = []

    def send(item: Hashable) -> None:
        tried.set()
        if away.is_set():
            raise Unreachable
        sent.append(item)

    sender = BackgroundSender(send)
    for number in range(3):
        sender.put(number)
    assert tried.wait(5)
    assert sender.waiting() == 3
    away.clear()
    assert sender.flush(5)
    assert sent == [0, 1, 2]


def test_what_waited_too_long_is_given_up() -> None:
    """A signal that has expired is not worth sending; the sweeps find its row."""

    def send(_item: Hashable) -> None:
        raise Unreachable

    sender = BackgroundSender(send, keep_s=0.0)
    sender.put("stale")
    assert sender.flush(5)
    assert sender.counts.dropped == 1


def test_an_item_that_cannot_be_sent_does_not_stop_the_others() -> None:
    """A broken item is counted and left behind."""
    sent: list[Hashable] = []

    def send(item: Hashable) -> None:
        if item == "broken":
            raise ValueError("no")
        sent.append(item)

    sender = BackgroundSender(send)
    sender.put("broken")
    sender.put("fine")
    assert sender.flush(5)
    assert sent == ["fine"]
    assert sender.counts.failed == 1


def test_flush_gives_up_in_time() -> None:
    """An exit waits for its signals, but not for ever."""
    release = threading.Event()

    def send(_item: Hashable) -> None:
        release.wait(5)

    sender = BackgroundSender(send)
    sender.put("slow")
    assert not sender.flush(0.05)
    release.set()
    assert sender.flush(5)


def test_nothing_is_started_until_something_is_sent() -> None:
    """A process that never signals has no thread."""
    before = threading.active_count()
    BackgroundSender(lambda _item: None)
    assert threading.active_count() == before
