"""Turning samples into figures: every one with its unit, its runs and its spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def percentile(samples: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of `samples`; `share` is between 0 and 1."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def latency(samples: Sequence[float], **target: float) -> dict[str, Any]:
    """Figures of durations given in seconds, in milliseconds: p50, p99, least and most."""
    values = [sample * 1000 for sample in samples]
    return _with_target(
        {
            "unit": "ms",
            "runs": len(values),
            "p50": round(percentile(values, 0.5), 2),
            "p99": round(percentile(values, 0.99), 2),
            "min": round(min(values), 2),
            "max": round(max(values), 2),
        },
        target,
    )


def repeated(values: Iterable[float], unit: str, **target: float) -> dict[str, Any]:
    """Figures of a measure that was taken several times: median, least and most."""
    taken = list(values)
    return _with_target(
        {
            "unit": unit,
            "runs": len(taken),
            "median": round(statistics.median(taken), 2),
            "min": round(min(taken), 2),
            "max": round(max(taken), 2),
        },
        target,
    )


def _with_target(figure: dict[str, Any], target: dict[str, float]) -> dict[str, Any]:
    """Add `target` and `missed` (names whose value is on the wrong side); a name `at_least_x` turns the side."""
    if not target:
        return figure
    missed = []
    for name, bound in target.items():
        value = figure[name.removeprefix("at_least_")]
        if value < bound if name.startswith("at_least_") else value > bound:
            missed.append(name.removeprefix("at_least_"))
    return {**figure, "target": target, "missed": missed}
