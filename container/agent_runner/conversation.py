"""The runner's side of a conversation with the provider: giving it batches, and settling what comes of them.

    waiting ──► open ──► result ──► rows + `completed`, one transaction
       ▲          │         └─────► nothing could be delivered: told so once, the answer to that counts
       │          ├─► the query ended: what it was opened with is done, the rest is given back
       ├──────────┼─► the query broke after an answer, before it took up what was pushed meanwhile: asked anew
       └── pause ─┴─► the query failed: tried again by class of error, the rest is given back
                        └─► gave up: `Error: …` to those who asked, `completed`, one transaction

Every handler of an event commits first and changes memory after that, so that it can be run again when a file was
locked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agent_runner import log, replies
from agent_runner.failures import SESSION, Backoff, pause_before_retry
from agent_runner.heartbeat import Heartbeat
from agent_runner.inbound import Inbound
from agent_runner.ledger import Change, Ledger, started
from agent_runner.output import parse
from agent_runner.providers.contract import (
    Init,
    Notice,
    Prompt,
    Provider,
    QueryInput,
    Result,
    ToolEnded,
    ToolStarted,
)
from agent_runner.rows import TaskEnd
from agent_runner.stream import Ended, Failed, Stream, StreamEvent
from agent_runner.toolstate import ToolState
from agent_runner.turns import Batch, Turns, merged
from agent_runner.values import storable

_MAX_ERROR_CHARS = 1000
# What is kept of the final text of a scheduled task.
_MAX_RESULT_CHARS = 20_000


class Conversation:
    """`post` hands a function to the loop; `cwd` is the agent's folder.

    `host_answers`: the host decides what is told of a scheduled task that failed.
    """

    def __init__(
        self,
        provider: Provider,
        ledger: Ledger,
        turns: Turns,
        inbound: Inbound,
        heartbeat: Heartbeat,
        post: Callable[[Callable[[], None]], None],
        cwd: str,
        backoff: Backoff,
        host_answers: bool = False,
    ) -> None:
        self.instructions = ""
        self._provider = provider
        self._ledger = ledger
        self._turns = turns
        self._inbound = inbound
        self._heartbeat = heartbeat
        self._post = post
        self._cwd = cwd
        self._backoff = backoff
        self._host_answers = host_answers
        self._stream: Stream | None = None
        self._tools = ToolState()
        self._not_before = 0.0
        self._out_of_order = False

    @property
    def ending(self) -> bool:
        """Whether an open query was told to take nothing more, and has not ended yet."""
        return self._stream is not None and self._stream.ending

    def pause_left(self) -> float:
        """Seconds until a failed turn is tried again."""
        return max(0.0, self._not_before - time.monotonic())

    def make_room_for_command(self) -> bool:
        """Have no query open, as a command of the runner needs it. False while one still runs its turn."""
        if self._stream is not None and self._turns.open:
            self._stream.end()
            return False
        self.drop()
        return True

    def drop(self, wait_s: float = 0.0) -> None:
        """Close the query, if one is open."""
        if self._stream is not None:
            self._stream.close(wait_s)
            self._stream = None
        self._tools.clear()

    def flush(self) -> None:
        """Give the waiting batches to the provider."""
        while self._turns.waiting and not (self.ending or self._out_of_order or self.pause_left()):
            if self._turns.open and self._turns.waiting[0].tasks:
                return  # a scheduled task is not pushed into another turn
            self._give(self._turns.waiting.popleft())

    def _give(self, batch: Batch) -> None:
        if self._stream is not None and not self._turns.open and self._stream.instructions != self.instructions:
            log.info("destinations_changed")
            self.drop()
        self._turns.open.append(batch)
        self._heartbeat.touch()
        log.info("prompt", ids=batch.ids, pushed=self._stream is not None)
        log.debug("prompt_text", text=batch.prompt.text)
        try:
            if self._stream is None:
                batch.opened_query = True
                start = QueryInput(batch.prompt, self._ledger.continuation, self._cwd, self.instructions)
                self._stream = Stream(self._provider.query(start), self.instructions, self._from_stream)
            else:
                self._stream.push(batch.prompt)
        except Exception as error:
            failure = error
            self._out_of_order = True
            self._post(lambda: self._failed(failure))

    def _from_stream(self, stream: Stream, event: StreamEvent) -> None:
        """Called in the stream's thread."""
        self._post(lambda: self._handle(stream, event))

    def _handle(self, stream: Stream, event: StreamEvent) -> None:
        if stream is not self._stream:
            return
        self._heartbeat.touch()
        if self._turns.open and not isinstance(event, Failed | Ended):
            self._turns.open[0].begun = True
        match event:
            case Init():
                self._ledger.commit(Change(continuation=event.continuation), self._turns.current())
            case Result():
                self._answered(stream, event)
            case ToolStarted():
                self._ledger.show_tool(self._tools.started(event.call_id, started(event.name, event.timeout_ms)))
            case ToolEnded():
                self._ledger.show_tool(self._tools.ended(event.call_id))
            case Notice():
                log.info("provider_notice", message=event.message)
            case Failed():
                self._failed(event.error)
            case Ended():
                self._ended()
        stream.resume()

    def _answered(self, stream: Stream, result: Result) -> None:
        count = min(result.answers, len(self._turns.open))
        batches = [*self._turns.open][:count] or ([self._turns.last] if self._turns.last else [])
        if not batches:
            log.warning("result_without_input")
            return
        batch = merged(batches)
        output = parse(result.text or "")
        with self._inbound.open() as reader:
            destinations = reader.destinations()
            answer = replies.address(output, destinations, reader, batch.rows)
        undelivered = not answer.rows and bool(answer.unknown or output.scratch)
        if undelivered and not (batch.nudged or stream.ending or self._ledger.sent_in_turn()):
            self._nudge(stream, batch, count, replies.nudge(answer.unknown, destinations))
            return
        completed = [*batch.ids, *batch.overtaken] if count else []
        ends = _succeeded(batch, result.text) if count else []
        change = Change(rows=answer.rows, completed=completed, ends=ends, continuation=result.continuation)
        self._ledger.commit(change, self._turns.current(after=count))
        self._forget_first(count)
        self._turns.last = batch
        log.info(
            "answered",
            ids=batch.ids,
            sent=[row.id for row in answer.rows],
            unknown=len(answer.unknown),
            scratch=len(output.scratch),
        )

    def _nudge(self, stream: Stream, batch: Batch, count: int, text: str) -> None:
        self._ledger.commit(Change(), self._turns.current(after=count) or batch)
        log.info("nudged", ids=batch.ids)
        self._forget_first(count)
        batch.nudged = True
        self._turns.open.append(batch)
        stream.push(Prompt(text))

    def _ended(self) -> None:
        """What the query was opened with, or was asked to say again, had its chance; what was pushed later did not."""
        done = [batch for batch in self._turns.open if batch.opened_query or batch.nudged]
        others = [batch for batch in self._turns.open if batch not in done]
        completed = [row_id for batch in done for row_id in (*batch.ids, *batch.overtaken)]
        released = [row_id for batch in others for row_id in batch.ids]
        ends = [end for batch in done for end in _succeeded(batch, None)]
        change = Change(completed=completed, released=released, ends=ends)
        self._ledger.commit(change, self._turns.current(after=len(self._turns.open)))
        self._close_after_end()
        log.info("query_ended", completed=completed, released=released)

    def _failed(self, error: BaseException) -> None:
        kind = self._provider.classify(error)
        if not self._turns.open:
            log.warning("query_failed_between_turns", kind=kind, error=error)
            self._close_after_end()
            return
        current, *others = self._turns.open
        # It was lost while idle, and what came meanwhile only met the loss; a second failure is its own.
        untouched = not (current.opened_query or current.begun)
        pause = 0.0 if untouched else pause_before_retry(error, kind, current.failures, self._backoff)
        released = [row_id for batch in others for row_id in batch.ids]
        change = Change(released=released, forget=kind == SESSION)
        if pause is None:
            told = [row for row in current.triggers if not (row.is_task and self._host_answers)]
            with self._inbound.open() as reader:
                notices = replies.notices(told, reader.session_routing(), _told(error))
            ends = [TaskEnd(task, "failed", kind, _cut(error)) for task in current.tasks]
            change = change._replace(rows=notices, completed=[*current.ids, *current.overtaken], ends=ends)
        self._ledger.commit(change, current if pause is not None else self._turns.current(after=1 + len(others)))
        log.warning("turn_failed", ids=current.ids, kind=kind, error=error, retry_in_s=pause, released=released)
        self._close_after_end()
        if pause is not None:
            if not untouched:
                current.failures.append(kind)
            self._turns.waiting.appendleft(current)
            self._not_before = time.monotonic() + pause

    def _close_after_end(self) -> None:
        self._turns.open.clear()
        self._out_of_order = False
        self.drop()
        self._ledger.show_tool(None)

    def _forget_first(self, count: int) -> None:
        for _ in range(count):
            self._turns.open.popleft()


def _succeeded(batch: Batch, text: str | None) -> list[TaskEnd]:
    result = storable(text[:_MAX_RESULT_CHARS]) if text else None
    return [TaskEnd(task, "succeeded", result=result) for task in batch.tasks]


def _told(error: BaseException) -> str:
    """An error as the people who asked see it."""
    return f"Error: {_cut(error)}"


def _cut(error: BaseException) -> str:
    return storable(str(error)[:_MAX_ERROR_CHARS]) or type(error).__name__
