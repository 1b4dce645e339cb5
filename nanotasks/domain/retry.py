"""What becomes of an inbound row whose agent died while it held the claim (NanoClaw 2's rule)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nanotasks.domain.backoff import doubled


class ResetAction(StrEnum):
    LEAVE = "leave"
    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True)
class ClaimedRow:
    """An inbound row under a claim; `process_after_ms` is None where the text is empty or unreadable."""

    status: str
    tries: int
    process_after_ms: int | None


@dataclass(frozen=True)
class Reset:
    """`delay_ms` from now and the new `tries` of a retry; a failed or left row keeps its own."""

    action: ResetAction
    tries: int
    delay_ms: int = 0


def decide_reset(row: ClaimedRow, now_ms: int, *, max_tries: int = 5, backoff_ms: int = 5000) -> Reset:
    """Try again after 5, 10, 20, 40 and 80 s, then fail; a row that is not pending or already put off is left alone."""
    put_off = row.process_after_ms is not None and row.process_after_ms > now_ms
    if row.status != "pending" or put_off:
        return Reset(ResetAction.LEAVE, row.tries)
    if row.tries >= max_tries:
        return Reset(ResetAction.FAIL, row.tries)
    return Reset(ResetAction.RETRY, row.tries + 1, doubled(backoff_ms, row.tries))
