"""Whether a running agent is stuck, and is to be killed (NanoClaw 2's rule, with two additions).

    silence   a heartbeat exists and is older than the ceiling: this also ends an agent that has nothing to do
    claim     a claim is older than the tolerance, and there was no heartbeat since it was made
    no start  there was never a heartbeat, and the instance is older than its first deadline (with claims) or
              the ceiling (without): the instance's start stands in for a heartbeat

Ceiling, tolerance and deadline are widened by the timeout of a running Bash call, which beats no heartbeat.
Claims made before this instance started belong to an earlier one and are ignored; since the claim's text has
whole seconds, the start is rounded down to a second first. Without a known start only the first two rules hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nanotasks.domain.timestamps import read_ms


@dataclass(frozen=True)
class Claim:
    """A row of `processing_ack` in state processing; the time is the agent's text."""

    message_id: str
    status_changed: str


@dataclass(frozen=True)
class AgentFacts:
    """What is known of a running agent. Times in milliseconds; a heartbeat of 0 means that there was none."""

    now_ms: int
    heartbeat_ms: float = 0
    current_tool: str | None = None
    tool_timeout_ms: int | None = None
    claims: Sequence[Claim] = ()
    started_ms: int | None = None


@dataclass(frozen=True)
class StuckLimits:
    """Patience in milliseconds."""

    ceiling_ms: int = 1_800_000
    claim_tolerance_ms: int = 60_000
    first_heartbeat_ms: int = 120_000


class KillReason(StrEnum):
    CEILING = "ceiling"
    CLAIM = "claim"
    NO_HEARTBEAT = "no-heartbeat"


@dataclass(frozen=True)
class Kill:
    """Kill the agent: what is `age_ms` old where `limit_ms` is allowed; the message id of a stuck claim."""

    reason: KillReason
    age_ms: float
    limit_ms: int
    message_id: str | None = None


def decide_stuck(facts: AgentFacts, limits: StuckLimits) -> Kill | None:
    """None to let the agent run. An age equal to its limit is still fine."""
    bash_ms = (facts.tool_timeout_ms or 0) if facts.current_tool == "Bash" else 0
    ceiling_ms = max(limits.ceiling_ms, bash_ms)
    if facts.heartbeat_ms:
        age_ms = facts.now_ms - facts.heartbeat_ms
        if age_ms > ceiling_ms:
            return Kill(KillReason.CEILING, age_ms, ceiling_ms)
    elif facts.started_ms is not None:
        limit_ms = max(limits.first_heartbeat_ms, bash_ms) if facts.claims else ceiling_ms
        if facts.now_ms - facts.started_ms > limit_ms:
            return Kill(KillReason.NO_HEARTBEAT, facts.now_ms - facts.started_ms, limit_ms)
    return _stuck_claim(facts, max(limits.claim_tolerance_ms, bash_ms))


def _stuck_claim(facts: AgentFacts, tolerance_ms: int) -> Kill | None:
    first_second_ms = 0 if facts.started_ms is None else facts.started_ms // 1000 * 1000
    for claim in facts.claims:
        claimed_ms = read_ms(claim.status_changed)
        if claimed_ms is None or (facts.started_ms is not None and claimed_ms < first_second_ms):
            continue
        age_ms = facts.now_ms - claimed_ms
        if age_ms > tolerance_ms and facts.heartbeat_ms <= claimed_ms:
            return Kill(KillReason.CLAIM, age_ms, tolerance_ms, claim.message_id)
    return None
