"""The metrics as Prometheus reads them, from one consistent view of the central database.

Nothing is counted in the process that prints: every figure is a row or a query, so each gateway and the command
line print the same, and they may be started and stopped as anybody likes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.central import Database
from nanotasks.central.deliveries import OUTCOMES
from nanotasks.central.figures import ATTEMPTS, DROPS, MESSAGES, RESIGNALS, RUNS, STALE_WRITES, Counter, DurationBucket
from nanotasks.domain.vocabulary import RUN_OUTCOMES
from nanotasks.watch.catalogue import METRICS, PREFIX, Metric
from nanotasks.watch.fold import BOUNDS_MS, UNBOUNDED_MS
from nanotasks.watch.gauges import GAUGES

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Labels that are shown from the beginning, so that a rate is known when the first one comes.
_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nanotasks_messages_total": (MESSAGES, ("answered", "completed", "context", "dead")),
    "nanotasks_drops_total": (DROPS, ()),
    "nanotasks_attempts_total": (ATTEMPTS, OUTCOMES),
    "nanotasks_runs_total": (RUNS, RUN_OUTCOMES),
    "nanotasks_resignals_total": (RESIGNALS, ("route", "append", "wake", "deliver", "attempt")),
    "nanotasks_stale_writes_total": (STALE_WRITES, ("delivery", "lease")),
}


def exposition(db: Database) -> str:
    """The metrics in Prometheus's text format. Raises `DependencyDownError` when the database does not answer."""
    return generate_latest(_Families(_read(db))).decode()


def as_rows(db: Database) -> list[dict[str, Any]]:
    """The same as `{name, labels, value}` for each sample."""
    samples = (sample for family in _read(db) for sample in family.samples)
    return [{"name": sample.name, "labels": sample.labels, "value": sample.value} for sample in samples]


def _read(db: Database) -> list[Family]:
    with db.read() as session:
        now = db.now_ms(session)
        return [_family(session, metric, now) for metric in METRICS]


class _Families(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        return iter(self._families)


def _family(session: Session, metric: Metric, now: int) -> Family:
    if metric.type == "histogram":
        return _histogram(session, metric)
    if metric.type == "counter":
        name, known = _COUNTERS[metric.name]
        counts = dict.fromkeys(known, 0)
        found = select(Counter.label, Counter.value).where(Counter.name == name)
        counts.update(dict(session.execute(found).all()))
        counter = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for label, count in counts.items():
            counter.add_metric([label], count)
        return counter
    gauge = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in GAUGES[metric.name](session, now).items():
        gauge.add_metric(labels, value)
    return gauge


def _histogram(session: Session, metric: Metric) -> Family:
    name = metric.name.removeprefix(PREFIX).removesuffix("_seconds")
    counts = dict.fromkeys(BOUNDS_MS, 0)
    found = select(DurationBucket.bound_ms, DurationBucket.count, DurationBucket.sum_ms)
    sum_ms = 0
    for bound_ms, count, spent_ms in session.execute(found.where(DurationBucket.name == name)):
        counts[bound_ms] = count
        sum_ms += spent_ms
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound_ms in sorted({*counts, UNBOUNDED_MS}):
        total += counts.get(bound_ms, 0)
        buckets.append(("+Inf" if bound_ms == UNBOUNDED_MS else str(bound_ms / 1000), total))
    histogram = HistogramMetricFamily(metric.name, metric.meaning)
    histogram.add_metric([], buckets, sum_ms / 1000)
    return histogram
