"""A glance at outbound.db: whether a commit is worth a round of delivery.

A turn begins with a commit too: the runner claims what it works on. A round for that would find nothing, and costs
twenty times as much as this glance. Only a commit that just added claims is passed over, or one in mid-turn that
added no message and gave up no claim (the state of a tool). Everything else is worth a round: a new message, a claim
that is gone, a file without claims (all of it may be over by now), and a file that cannot be read.

An ack whose claim came and went between two glances, while another claim goes on, is not seen here; it is found when
that claim ends, and by the sweep over running agents.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanotasks.errors import NanotasksError
from nanotasks.session import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound


@dataclass(frozen=True)
class Glance:
    """The rowid of the newest message, and the inbound rows that are claimed."""

    newest: int
    claims: frozenset[str]


def glance(folder: SessionFolder, limits: ReadLimits) -> Glance | None:
    """What the file shows now; None when it cannot be read."""
    try:
        with open_outbound(folder, limits) as reader:
            return Glance(reader.max_rowid(), frozenset(claim.message_id for claim in reader.claims()))
    except (NanotasksError, OSError):
        return None


def is_worth_a_round(before: Glance | None, now: Glance | None) -> bool:
    """Whether there may be something to deliver or an ack to record since `before`."""
    if before is None or now is None or not now.claims:
        return True
    return now.newest != before.newest or not now.claims >= before.claims
