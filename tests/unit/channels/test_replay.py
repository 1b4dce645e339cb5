"""Replaying a file: every usable line in order, every other one reported, and again without harm."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from nanotasks.channels.contract import Accepted, InboundMessage
from nanotasks.channels.file.replay import BATCH_LINES, Outcome, Replay, Replayed
from nanotasks.errors import InvalidError, NanotasksError, TooManyError


@dataclass
class Intake:
    """Accepts many at a time; a chat holds `room` messages until somebody routes them."""

    room: int = 1_000_000
    messages: list[InboundMessage] = field(default_factory=list)
    batches: int = 0

    def __call__(self, messages: Sequence[InboundMessage]) -> list[Outcome]:
        self.batches += 1
        return [self._take(message) for message in messages]

    def _take(self, message: InboundMessage) -> Outcome:
        if any(known.message_id == message.message_id for known in self.messages):
            return Accepted("known", duplicate=True)
        if message.content["text"] == "unstorable":
            return InvalidError("The message cannot be stored.")
        if len(self.messages) >= self.room:
            return TooManyError(retry_after_s=0.001)
        self.messages.append(message)
        return Accepted("new")


def line(number: int, text: str = "hello") -> bytes:
    return json.dumps({"id": f"m-{number}", "platform_id": "x", "text": text}).encode() + b"\n"


def replay(
    source: bytes, intake: Intake, patience_s: float = 60.0
) -> tuple[Replayed, list[tuple[int, NanotasksError]]]:
    problems: list[tuple[int, NanotasksError]] = []
    made = Replay(
        intake,
        max_line_bytes=1024,
        on_problem=lambda at, error: problems.append((at, error)),
        patience_s=patience_s,
    )
    return made.run(io.BytesIO(source)), problems


def test_lines_are_accepted_in_order_and_in_batches() -> None:
    """One commit for many lines."""
    intake = Intake()
    count = 2 * BATCH_LINES + 1
    report, problems = replay(b"".join(line(number) for number in range(count)), intake)
    assert [message.message_id for message in intake.messages] == [f"m-{number}" for number in range(count)]
    assert (report.lines, report.accepted, report.failed, problems) == (count, count, 0, [])
    assert intake.batches == 3


def test_a_second_pass_changes_nothing() -> None:
    """Every line is known."""
    intake, source = Intake(), line(1) + line(2)
    replay(source, intake)
    report, _ = replay(source, intake)
    assert (report.accepted, report.duplicates, len(intake.messages)) == (0, 2, 2)


def test_unusable_lines_are_reported_by_number_and_the_others_go_on() -> None:
    """Not JSON, not UTF-8, not in the form, too long, and not storable; empty lines are nothing."""
    source = b"".join(
        [
            line(1),
            b"nope\n",
            b"\n",
            b"\xff\xfe\n",
            b'{"id": "m"}\n',
            line(6, "x" * 2000),
            line(7, "unstorable"),
            b"   \r\n",
            line(9).rstrip(b"\n"),  # a last line without its end
        ]
    )
    intake = Intake()
    report, problems = replay(source, intake)
    assert [message.message_id for message in intake.messages] == ["m-1", "m-9"]
    assert sorted(at for at, _ in problems) == [2, 4, 5, 6, 7]
    assert "1 KiB" in str(dict(problems)[6])
    assert (report.lines, report.accepted, report.failed, report.bytes) == (9, 2, 5, len(source))


def test_a_full_chat_is_waited_for_in_order() -> None:
    """What did not fit is offered again before anything that comes after it."""

    class Routed(Intake):
        def __call__(self, messages: Sequence[InboundMessage]) -> list[Outcome]:
            outcomes = super().__call__(messages)
            self.room += 3  # meanwhile somebody routes
            return outcomes

    intake = Routed(room=2)
    report, _ = replay(b"".join(line(number) for number in range(20)), intake)
    assert report.accepted == 20
    assert [message.message_id for message in intake.messages] == [f"m-{number}" for number in range(20)]


def test_a_chat_that_stays_full_ends_the_replay_with_the_line() -> None:
    """After patience ran out, saying where it stopped and that it may be done again."""
    with pytest.raises(TooManyError, match=r"line 3 .*replay the same file again"):
        replay(b"".join(line(number) for number in range(5)), Intake(room=2), patience_s=0.01)


def test_progress_is_told_after_each_commit() -> None:
    """For a person who waits."""
    told: list[int] = []
    intake = Intake()
    made = Replay(intake, max_line_bytes=1024, on_progress=lambda report: told.append(report.accepted))
    made.run(io.BytesIO(b"".join(line(number) for number in range(BATCH_LINES + 5))))
    assert told == [BATCH_LINES, BATCH_LINES + 5]
