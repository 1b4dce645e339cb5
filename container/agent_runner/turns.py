"""The batches of one process, from claim to ack.

    waiting   claimed, not yet given to a provider, or to be tried again after a pause
    open      given to the provider, in that order, and not answered yet; the first is the one being answered

A batch that is in neither has been acknowledged or given back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from agent_runner.providers.contract import Prompt
from agent_runner.rows import InboundRow


class Batch:
    """Rows that are prompted and acknowledged together. `overtaken` are ids that are acknowledged with them.

    `opened_query`: its prompt opened the query; otherwise it was pushed into one. `begun`: the provider has sent an
    event while this batch was the one being answered.
    """

    def __init__(self, rows: Sequence[InboundRow], prompt: Prompt, overtaken: Sequence[str] = ()) -> None:
        self.rows = tuple(rows)
        self.prompt = prompt
        self.overtaken = tuple(overtaken)
        self.failures: list[str] = []
        self.nudged = False
        self.opened_query = False
        self.begun = False

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.rows]

    @property
    def triggers(self) -> list[InboundRow]:
        return [row for row in self.rows if row.trigger]

    @property
    def tasks(self) -> list[str]:
        """The ids of the scheduled tasks among its rows: one at most, and then there is nothing else."""
        return [row.id for row in self.rows if row.is_task]

    @property
    def reply_to(self) -> str:
        """The message this batch answers, as tools report it."""
        return (self.triggers or self.rows)[0].id


def merged(batches: Sequence[Batch]) -> Batch:
    """Several batches that were answered by one result, as one."""
    if len(batches) == 1:
        return batches[0]
    rows = [row for batch in batches for row in batch.rows]
    whole = Batch(rows, batches[0].prompt, [row_id for batch in batches for row_id in batch.overtaken])
    whole.nudged = any(batch.nudged for batch in batches)
    whole.opened_query = any(batch.opened_query for batch in batches)
    whole.begun = any(batch.begun for batch in batches)
    return whole


class Turns:
    def __init__(self) -> None:
        self.waiting: deque[Batch] = deque()
        self.open: deque[Batch] = deque()
        # Who was answered last: a provider may say more after the result of its only input.
        self.last: Batch | None = None

    def __len__(self) -> int:
        return len(self.open) + len(self.waiting)

    @property
    def held(self) -> set[str]:
        """The ids of all rows that are claimed and not answered."""
        return {row_id for batch in (*self.open, *self.waiting) for row_id in batch.ids}

    def current(self, *, after: int = 0) -> Batch | None:
        """The batch that is being answered or will be next, once the first `after` open ones are gone."""
        return next(iter([*[*self.open][after:], *self.waiting]), None)
