"""Everything the loop writes to outbound.db, each change in one transaction.

Besides rows and acks that is the continuation (what the provider needs to go on with its conversation, kept as
`continuation:<provider>`) and, for tools in other processes, the id of the message that is being answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent_runner import faults, log
from agent_runner.clock import now_iso
from agent_runner.outbound import REPLYING_TO, Outbound
from agent_runner.rows import OutboundRow, TaskEnd
from agent_runner.toolstate import RunningTool
from agent_runner.turns import Batch

_LEGACY_CONTINUATION = "sdk_session_id"


class Change(NamedTuple):
    """What one transaction writes. `completed`, `failed`, `claimed` and `released` are ids of inbound rows.

    `tasks` are those of the claimed that are scheduled tasks, `ends` how such tasks ended. `continuation` None leaves
    the stored one, `forget` removes it.
    """

    rows: Sequence[OutboundRow] = ()
    completed: Sequence[str] = ()
    failed: Sequence[str] = ()
    claimed: Sequence[str] = ()
    released: Sequence[str] = ()
    tasks: Sequence[str] = ()
    ends: Sequence[TaskEnd] = ()
    continuation: str | None = None
    forget: bool = False


class Ledger:
    """`continuation` is always what the file says: a failed turn cannot make the two differ."""

    def __init__(self, outbound: Outbound, provider: str) -> None:
        self._outbound = outbound
        self._key = f"continuation:{provider.lower()}"
        self._replying_to: str | None = None
        self._turn_began_at_seq = 0
        self._tool: RunningTool | None = None
        self.continuation: str | None = None

    def recover(self) -> None:
        """Give back what an earlier process left claimed, forget its tool, and load the continuation."""
        with self._outbound.transaction():
            released = self._outbound.release_all()
            self._outbound.forget_tool()
            self._outbound.set_state(REPLYING_TO, None)
            own, legacy = self._outbound.state(self._key), self._outbound.state(_LEGACY_CONTINUATION)
            if legacy is not None:
                self._outbound.set_state(_LEGACY_CONTINUATION, None)
                if own is None:
                    self._outbound.set_state(self._key, legacy)
        self.continuation = legacy if own is None else own
        if released:
            log.info("claims_released", count=released)

    def commit(self, change: Change, current: Batch | None) -> None:
        """Carry out `change`; `current` is the batch that is being answered afterwards.

        Raises `sqlite3.OperationalError` when a file is locked for long or cannot be written; nothing has happened
        then.
        """
        replying_to = current.reply_to if current else None
        continuation = None if change.forget else change.continuation or self.continuation
        began_at = self._turn_began_at_seq
        with self._outbound.transaction():
            self._outbound.insert(change.rows)
            self._outbound.acknowledge(change.claimed, "processing")
            self._outbound.acknowledge(change.completed, "completed")
            self._outbound.acknowledge(change.failed, "failed")
            self._outbound.release(change.released)
            self._outbound.report_claims(change.tasks)
            self._outbound.report_ends(change.ends)
            if continuation != self.continuation:
                self._outbound.set_state(self._key, continuation)
            if replying_to != self._replying_to:
                self._outbound.set_state(REPLYING_TO, replying_to)
                began_at = self._outbound.max_seq()
            if change.claimed:
                faults.point("turn.before_claim")
            if change.completed:
                faults.point("turn.before_end")
        if change.claimed:
            faults.point("turn.after_claim")
        if change.completed:
            faults.point("turn.after_end")
        self.continuation, self._replying_to, self._turn_began_at_seq = continuation, replying_to, began_at

    def sent_in_turn(self) -> bool:
        """Whether a tool, of this or another process, has sent something since the running turn began."""
        return self._outbound.max_seq() > self._turn_began_at_seq

    def show_tool(self, tool: RunningTool | None) -> None:
        """Let the host see which tool runs."""
        if tool == self._tool:
            return
        with self._outbound.transaction():
            if tool is None:
                self._outbound.forget_tool()
            else:
                self._outbound.set_tool(tool.name, tool.timeout_ms, tool.started_at)
        self._tool = tool

    def close(self) -> None:
        self._outbound.close()


def started(name: str, timeout_ms: int | None) -> RunningTool:
    """A tool that starts now."""
    return RunningTool(name, timeout_ms, now_iso())
