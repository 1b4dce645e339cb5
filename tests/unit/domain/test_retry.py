"""The reset of rows that a dead agent had claimed, against `tests/data/retry.json`, and the pauses between tries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks.domain.backoff import jittered
from nanotasks.domain.retry import ClaimedRow, Reset, ResetAction, decide_reset
from nanotasks.domain.timestamps import read_ms

CASES = json.loads((Path(__file__).parents[2] / "data" / "retry.json").read_text())["cases"]
NOW = 1_773_146_096_000


def process_after(given: dict[str, Any] | None) -> int | None:
    if given is None:
        return None
    return read_ms(given["text"]) if "text" in given else NOW + given["offset_s"] * 1000


@pytest.mark.parametrize("case", [case for case in CASES if "out" in case])
def test_recorded_resets(case: dict[str, Any]) -> None:
    """A claimed pending row is put off, failed or left as NanoClaw 2 did; rows without a claim are not asked about."""
    claimed = {ack["message_id"] for ack in case["acks"] if ack["status"] == "processing"}
    for row, after in zip(case["rows"], case["out"]["after"], strict=True):
        if row["id"] not in claimed:
            continue
        found = decide_reset(ClaimedRow(row["status"], row["tries"], process_after(row["pa"])), NOW)
        if "delay_s" in after:
            assert found == Reset(ResetAction.RETRY, after["tries"], after["delay_s"] * 1000)
        elif after["status"] != row["status"]:
            assert (found.action, after["status"]) == (ResetAction.FAIL, "failed")
        else:
            assert found == Reset(ResetAction.LEAVE, row["tries"])


def test_five_tries_and_then_failure() -> None:
    """5, 10, 20, 40, 80 s, then the row has failed."""
    row, delays = ClaimedRow("pending", 0, None), []
    while (reset := decide_reset(row, NOW)).action is ResetAction.RETRY:
        delays.append(reset.delay_ms)
        row = ClaimedRow("pending", reset.tries, NOW - 1)
    assert (delays, reset.action) == ([5000, 10_000, 20_000, 40_000, 80_000], ResetAction.FAIL)


@pytest.mark.parametrize(
    ("failures", "luck", "expected"),
    [(1, 0.0, 2000), (2, 0.0, 4000), (1, 0.5, 1500), (10, 0.0, 900_000), (10_000, 0.0, 900_000)],
)
def test_pauses_double_up_to_a_limit(failures: int, luck: float, expected: int) -> None:
    """2, 4, 8 s … 15 min, with up to a half taken away by luck."""
    assert jittered(failures, 2000, 900_000, luck) == expected


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_pause_stays_within_bounds(failures: int, luck: float) -> None:
    """Never less than half the base, never more than the limit."""
    assert 1000 <= jittered(failures, 2000, 900_000, luck) <= 900_000
