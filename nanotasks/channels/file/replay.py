"""Reading messages from a JSONL file: one message per line, in the form of `nanotasks.channels.form`.

Lines may name any channel (`channel_type`, by default `file`) and where answers go (`reply_to`), since whoever
replays a file is the operator. Messages are accepted in batches, one commit each, in the order of the lines. A
line that cannot be used is reported with its number and does not stop the others. Replaying the same file again
is harmless: a message is known by its id, sender, text and attachments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from nanotasks.channels.contract import Accepted, InboundMessage
from nanotasks.channels.form import read
from nanotasks.errors import InvalidError, NanotasksError, TooManyError

BATCH_LINES = 200
BATCH_BYTES = 4 * 1024 * 1024

Outcome: TypeAlias = Accepted | NanotasksError
AcceptMany: TypeAlias = Callable[[Sequence[InboundMessage]], Sequence[Outcome]]
Problem: TypeAlias = Callable[[int, NanotasksError], None]


@dataclass
class Replayed:
    """How far a replay has come. `lines` counts every line that was read, empty ones too."""

    lines: int = 0
    bytes: int = 0
    accepted: int = 0
    duplicates: int = 0
    failed: int = 0


@dataclass(frozen=True)
class _Item:
    line: int
    message: InboundMessage


class Replay:
    """One pass over a file."""

    def __init__(
        self,
        accept_many: AcceptMany,
        *,
        max_line_bytes: int,
        on_problem: Problem = lambda _line, _error: None,
        on_progress: Callable[[Replayed], None] = lambda _report: None,
        patience_s: float = 60.0,
    ) -> None:
        """`accept_many` answers for each message, in order; what it answers with `TooManyError` is offered again,
        for `patience_s` seconds without any progress at most."""
        self._accept_many = accept_many
        self._max_line_bytes = max_line_bytes
        self._on_problem = on_problem
        self._on_progress = on_progress
        self._patience_s = patience_s
        self.report = Replayed()

    def run(self, source: BinaryIO) -> Replayed:
        """Accept every line. Raises what `accept_many` raises, and `TooManyError` when patience ran out."""
        batch: list[_Item] = []
        size = 0
        for number, line in self._lines(source):
            try:
                batch.append(_Item(number, read(line, channel_type="file", any_address=True)))
            except InvalidError as error:
                self._fail(number, error)
            size += len(line)
            if len(batch) >= BATCH_LINES or size >= BATCH_BYTES:
                self._accept(batch)
                batch, size = [], 0
        self._accept(batch)
        return self.report

    def _lines(self, source: BinaryIO) -> Iterator[tuple[int, bytes]]:
        while line := source.readline(self._max_line_bytes + 1):
            self.report.lines += 1
            self.report.bytes += len(line)
            if len(line) > self._max_line_bytes and not line.endswith(b"\n"):
                self._skip_rest(source)
                limit = self._max_line_bytes // 1024
                self._fail(self.report.lines, InvalidError(f"The line has more than {limit} KiB."))
            elif line.strip():
                yield self.report.lines, line

    def _skip_rest(self, source: BinaryIO) -> None:
        while rest := source.readline(self._max_line_bytes):
            self.report.bytes += len(rest)
            if rest.endswith(b"\n"):
                return

    def _accept(self, items: list[_Item]) -> None:
        deadline = time.monotonic() + self._patience_s
        while items:
            refused = self._offer(items)
            self._on_progress(self.report)
            if not refused:
                return
            if len(refused) < len(items):
                deadline = time.monotonic() + self._patience_s
            pause_s = refused[0][1].retry_after_s
            if time.monotonic() + pause_s > deadline:
                raise self._out_of_patience(refused[0][0].line, refused[0][1])
            time.sleep(pause_s)
            items = [item for item, _ in refused]

    def _offer(self, items: list[_Item]) -> list[tuple[_Item, TooManyError]]:
        refused = []
        outcomes = self._accept_many([item.message for item in items])
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, TooManyError):
                refused.append((item, outcome))
            elif isinstance(outcome, NanotasksError):
                self._fail(item.line, outcome)
            elif outcome.duplicate:
                self.report.duplicates += 1
            else:
                self.report.accepted += 1
        return refused

    def _fail(self, line: int, error: NanotasksError) -> None:
        self.report.failed += 1
        self._on_problem(line, error)

    def _out_of_patience(self, line: int, error: TooManyError) -> TooManyError:
        return TooManyError(
            error.what,
            why=f"Nothing moved for {self._patience_s:g} s; line {line} and those after it wait.",
            fix="See whether the workers run, and replay the same file again: what was accepted is skipped.",
            retry_after_s=error.retry_after_s,
        )
