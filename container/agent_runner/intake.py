"""From due rows to claimed batches: what is prompted, what the runner answers itself, what a script decides first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import inf

from agent_runner import log, replies
from agent_runner.batching import Due, is_suspect, stands_alone
from agent_runner.commands import is_clear, raw_command
from agent_runner.config import Config
from agent_runner.conversation import Conversation
from agent_runner.destinations import addendum
from agent_runner.failures import OTHER
from agent_runner.formatter import Formatter
from agent_runner.inbound import Inbound
from agent_runner.ledger import Change, Ledger
from agent_runner.providers.contract import Prompt
from agent_runner.rows import Destination, InboundRow, Route, TaskEnd
from agent_runner.scripts import Outcome, ScriptRunner, script_of
from agent_runner.turns import Batch, Turns

# Batches claimed and not answered. More would only grow old as claims.
MAX_CLAIMED = 4


class Intake:
    """`post` hands a function to the loop; `native_commands` is what the provider says of itself."""

    def __init__(
        self,
        config: Config,
        inbound: Inbound,
        ledger: Ledger,
        turns: Turns,
        conversation: Conversation,
        formatter: Formatter,
        scripts: ScriptRunner,
        post: Callable[[Callable[[], None]], None],
        native_commands: bool,
    ) -> None:
        self._config = config
        self._inbound = inbound
        self._ledger = ledger
        self._turns = turns
        self._conversation = conversation
        self._formatter = formatter
        self._scripts = scripts
        self._post = post
        self._native_commands = native_commands
        self._next_due: float | None = None

    def due_in(self) -> float:
        """Seconds until a row becomes due by its time alone, as far as the last look knew."""
        return inf if self._next_due is None else max(0.0, self._next_due - time.time())

    def look(self) -> bool:
        """Claim what is due. True when there may be more that can be taken now.

        Raises `sqlite3.OperationalError` when a file cannot be read or written at the moment.
        """
        self._next_due = None
        if self._turns.waiting or self._conversation.ending or len(self._turns) >= MAX_CLAIMED:
            return False
        with self._inbound.open() as reader:
            due = self._inbound.due(reader, self._config.max_messages)
            self._next_due = reader.next_due()
            # A host that gave up on this process may have deleted its claims; what it still works on is not new.
            due = due._replace(rows=tuple(row for row in due.rows if row.id not in self._turns.held))
            if not due.rows or self._keeps_apart(due.rows):
                return False
            destinations, session = reader.destinations(), reader.session_routing()
        taken = self._take(due, destinations, session)
        # After rows that stand alone there may be others at once.
        return taken and (len(due.rows) >= self._config.max_messages or stands_alone(due.rows[0]))

    def _take(self, due: Due, destinations: Sequence[Destination], session: Route) -> bool:
        clears = [row for row in due.rows if row.trigger and is_clear(row)]
        if (clears or self._has_native_command(due.rows)) and not self._conversation.make_room_for_command():
            return False
        scripted = [row for row in due.rows if row.trigger and script_of(row) is not None]
        rest = [row for row in due.rows if row not in clears and row not in scripted]
        batch, completed, failed = self._batch(rest, due.overtaken, destinations)
        change = Change(
            rows=[row for clear in clears for row in replies.notices([clear], session, "Session cleared.")],
            completed=[*(row.id for row in clears), *completed],
            failed=failed,
            claimed=[*(batch.ids if batch else ()), *(row.id for row in scripted)],
            tasks=[row.id for row in due.rows if row.is_task],
            ends=_unreadable(due.rows, failed),
            forget=bool(clears),
        )
        self._ledger.commit(change, self._turns.current() or batch)
        if change.claimed:
            log.info("claimed", ids=list(change.claimed))
        if clears:
            log.info("session_cleared", ids=[row.id for row in clears])
        if scripted:
            self._scripts.start(scripted, self._script_ended)
        self._send(batch, destinations)
        return True

    def _keeps_apart(self, rows: Sequence[InboundRow]) -> bool:
        """Whether these rows have to wait for those that are claimed.

        One of them may be what the agent dies of, or it is a scheduled task; its script may run meanwhile.
        """
        claimed = [row for batch in (*self._turns.open, *self._turns.waiting) for row in batch.rows]
        tasks = any(row.is_task and script_of(row) is None for row in rows)
        return bool(claimed) and (tasks or any(map(is_suspect, (*claimed, *rows))))

    def _has_native_command(self, rows: Sequence[InboundRow]) -> bool:
        return self._native_commands and any(row.trigger and raw_command(row) is not None for row in rows)

    def _batch(
        self, rows: Sequence[InboundRow], overtaken: Sequence[str], destinations: Sequence[Destination]
    ) -> tuple[Batch | None, list[str], list[str]]:
        """The batch of these rows, and the ids of those that say nothing and of those that cannot be rendered.

        No batch without a row that asks for an answer: context then waits for the next one.
        """
        if not any(row.trigger for row in rows):
            return None, [], []
        rendered = self._formatter.prompt(rows, destinations, raw_commands=self._native_commands)
        failed = [row.id for row in rendered.failed]
        silent = [row.id for row in rows if row not in rendered.shown and row not in rendered.failed]
        if not any(row.trigger for row in rendered.shown):
            return None, silent, failed
        asks = frozenset(row.seq for row in rendered.shown if row.trigger and row.seq is not None)
        return Batch(rendered.shown, Prompt(rendered.text, asks), overtaken), silent, failed

    def _send(self, batch: Batch | None, destinations: Sequence[Destination]) -> None:
        if batch is not None:
            self._conversation.instructions = addendum(self._config.assistant_name, destinations)
            self._turns.waiting.append(batch)
            self._conversation.flush()

    def _script_ended(self, row: InboundRow, outcome: Outcome) -> None:
        """Called in the scripts' thread."""
        self._post(lambda: self._settle_script(row, outcome))

    def _settle_script(self, row: InboundRow, outcome: Outcome) -> None:
        if outcome.task is None:
            end = TaskEnd(row.id, "failed", "script", outcome.error) if outcome.error else TaskEnd(row.id, "not_woken")
            self._ledger.commit(Change(completed=[row.id], ends=[end]), self._turns.current())
            return
        with self._inbound.open() as reader:
            destinations = reader.destinations()
        batch, completed, failed = self._batch([outcome.task], (), destinations)
        ends = _unreadable([outcome.task], failed)
        self._ledger.commit(Change(completed=completed, failed=failed, ends=ends), self._turns.current() or batch)
        self._send(batch, destinations)


def _unreadable(rows: Sequence[InboundRow], failed: Sequence[str]) -> list[TaskEnd]:
    """The ends of those scheduled tasks that cannot be made into a prompt."""
    error = "The task cannot be shown to the agent; the runner's log says why (row_not_renderable)."
    return [TaskEnd(row.id, "failed", OTHER, error) for row in rows if row.is_task and row.id in failed]
