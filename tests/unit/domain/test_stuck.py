"""The stuck decision, against the recorded behaviour of NanoClaw 2 (`tests/data/stuck.json`) and its additions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanotasks.domain.stuck import AgentFacts, Claim, Kill, KillReason, StuckLimits, decide_stuck
from nanotasks.domain.timestamps import read_ms

CASES = json.loads((Path(__file__).parents[2] / "data" / "stuck.json").read_text())["cases"]
NOW = 1_773_146_096_789
LIMITS = StuckLimits()


@pytest.mark.parametrize("case", [case for case in CASES if "in" in case])
def test_recorded_decisions(case: dict[str, Any]) -> None:
    """Without a known start the decision is NanoClaw 2's, to the millisecond."""
    given, state = case["in"], case["in"]["container_state"] or {}
    found = decide_stuck(
        AgentFacts(
            now_ms=given["now_ms"],
            heartbeat_ms=given["heartbeat_mtime_ms"],
            current_tool=state.get("current_tool"),
            tool_timeout_ms=state.get("tool_declared_timeout_ms"),
            claims=tuple(Claim(claim["message_id"], claim["status_changed"]) for claim in given["claims"]),
        ),
        LIMITS,
    )
    expected = case["out"]
    if expected["action"] == "ok":
        assert found is None
    elif expected["action"] == "kill-ceiling":
        assert found == Kill(KillReason.CEILING, expected["heartbeatAgeMs"], expected["ceilingMs"])
    else:
        assert found == Kill(KillReason.CLAIM, expected["claimAgeMs"], expected["toleranceMs"], expected["messageId"])


@pytest.mark.parametrize("case", [case for case in CASES if case.get("kind") == "parse"], ids=lambda c: c["input"])
def test_recorded_timestamps(case: dict[str, Any]) -> None:
    """A timestamp reads as it did for NanoClaw 2."""
    assert read_ms(case["input"]) == case["ms"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-02-30 00:00:00", 1_772_409_600_000),  # 30 February is 2 March
        ("2026-03-10T24:00:00Z", 1_773_187_200_000),  # the end of the day
        ("2026-03-10 24:00:01", None),
        ("2026-03-10 12:00:60", None),
        ("2026-13-01", None),
        ("9999-12-31 24:00:00", None),
        ("0000-01-01", None),
        ("2026-03-10 12:00:00 and more", None),
        ("٢٠٢٦-03-10", None),  # digits of another script
    ],
)
def test_odd_timestamps(text: str, expected: int | None) -> None:
    """What is no date reads as nothing, and never raises."""
    assert read_ms(text) == expected


def iso_s(offset_s: float) -> str:
    from nanotasks.clock import iso

    return iso(NOW + round(offset_s * 1000))[:19].replace("T", " ")


def test_a_claim_of_an_earlier_instance_is_ignored() -> None:
    """What a dead instance claimed does not kill the one that was just started."""
    stale = (Claim("m1", iso_s(-90)),)
    assert decide_stuck(AgentFacts(NOW, 0, claims=stale, started_ms=NOW - 2000), LIMITS) is None
    assert decide_stuck(AgentFacts(NOW, 0, claims=stale), LIMITS) is not None


def test_a_claim_in_the_second_of_the_start_counts() -> None:
    """A claim's text has whole seconds, so the start is rounded down before they are compared."""
    started_ms = NOW - 90_000
    claims = (Claim("m1", iso_s(-90)),)
    assert decide_stuck(AgentFacts(NOW, 0, claims=claims, started_ms=started_ms), LIMITS) == Kill(
        KillReason.CLAIM, 90_789, 60_000, "m1"
    )


@pytest.mark.parametrize(
    ("age_s", "claims", "tool_timeout_ms", "killed"),
    [
        (120, ("unreadable",), None, False),
        (121, ("unreadable",), None, True),
        (121, ("unreadable",), 600_000, False),  # a Bash call may last ten minutes
        (121, (), None, False),
        (1800, (), None, False),
        (1801, (), None, True),
    ],
)
def test_an_agent_without_any_heartbeat(
    age_s: int, claims: tuple[str, ...], tool_timeout_ms: int | None, killed: bool
) -> None:
    """The start stands in for a missing heartbeat: 120 s with claims, the ceiling without."""
    facts = AgentFacts(
        NOW,
        0,
        current_tool="Bash" if tool_timeout_ms else None,
        tool_timeout_ms=tool_timeout_ms,
        claims=tuple(Claim("m", text) for text in claims),
        started_ms=NOW - age_s * 1000,
    )
    found = decide_stuck(facts, LIMITS)
    assert (found is not None) == killed
    assert found is None or found.reason is KillReason.NO_HEARTBEAT
