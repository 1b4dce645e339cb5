"""The metrics: their names, labels, units and meanings, as `docs/events.md` lists them.

The names are a contract: people build dashboards and alerts on them. Every label has few values that are known
beforehand, except `series`, of which the `SERIES_SHOWN` with the most are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "nanotasks_"
SERIES_SHOWN = 100

Type = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True)
class Metric:
    """One metric; a counter's name ends in `_total`."""

    name: str
    type: Type
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


METRICS = (
    Metric("nanotasks_build_info", "gauge", "", "Always 1; the release that prints this.", ("version",)),
    Metric(
        "nanotasks_accept_seconds",
        "histogram",
        "seconds",
        "From the gateway's receipt of a message until it stands in the session's file.",
    ),
    Metric(
        "nanotasks_wake_seconds",
        "histogram",
        "seconds",
        "From the record of an agent's start until its container or process runs.",
    ),
    Metric(
        "nanotasks_turn_seconds",
        "histogram",
        "seconds",
        "From the session's file until the first reply to a message was taken over; a cold start is in it.",
    ),
    Metric(
        "nanotasks_deliver_seconds",
        "histogram",
        "seconds",
        "From the record of a delivery until the platform took it, with all attempts and pauses.",
    ),
    Metric("nanotasks_messages_total", "counter", "messages", "Messages at an agent that ended, by how.", ("end",)),
    Metric("nanotasks_drops_total", "counter", "messages", "Messages that no agent got, by the reason.", ("reason",)),
    Metric("nanotasks_attempts_total", "counter", "attempts", "Attempts to deliver that ended, by how.", ("outcome",)),
    Metric(
        "nanotasks_runs_total", "counter", "runs", "Occurrences of scheduled tasks that ended, by how.", ("outcome",)
    ),
    Metric(
        "nanotasks_resignals_total",
        "counter",
        "signals",
        "Signals that a sweep sent because a row was still waiting, by what was signalled.",
        ("signal",),
    ),
    Metric(
        "nanotasks_stale_writes_total",
        "counter",
        "writes",
        "Ends that changed no row, because somebody else owned it by then.",
        ("what",),
    ),
    Metric(
        "nanotasks_oldest_due_seconds",
        "gauge",
        "seconds",
        "For how long the longest waiting row has been due, by what waits; 0 when nothing does.",
        ("kind",),
    ),
    Metric(
        "nanotasks_retrying",
        "gauge",
        "rows",
        "What failed and waits for its next try, by the class of the last failure.",
        ("kind", "class"),
    ),
    Metric(
        "nanotasks_dead",
        "gauge",
        "rows",
        "What was given up and not put aside by an operator, by the class of the last failure.",
        ("kind", "class"),
    ),
    Metric("nanotasks_deliveries", "gauge", "rows", "Deliveries that are not at their end, by state.", ("state",)),
    Metric(
        "nanotasks_missed_runs",
        "gauge",
        "runs",
        f"Occurrences in the history that were missed, of the {SERIES_SHOWN} series with the most.",
        ("series",),
    ),
    Metric(
        "nanotasks_canary_age_seconds",
        "gauge",
        "seconds",
        "Since a worker received the task that it sends itself; it is restarted when it receives nothing.",
        ("worker",),
    ),
    Metric("nanotasks_tick_age_seconds", "gauge", "seconds", "Since a periodic duty was claimed.", ("tick",)),
    Metric("nanotasks_leases", "gauge", "leases", "Leases that somebody holds, by what they are for.", ("kind",)),
    Metric("nanotasks_instances", "gauge", "agents", "Agents that run, by host.", ("host",)),
    Metric("nanotasks_hosts", "gauge", "hosts", "Hosts, by state.", ("state",)),
    Metric(
        "nanotasks_fold_age_seconds",
        "gauge",
        "seconds",
        "How far histograms and the totals of messages, drops and attempts are behind.",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}
