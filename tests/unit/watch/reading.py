"""The metrics as Prometheus's own parser reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from nanotasks.central import Database
from nanotasks.watch.exposition import exposition

Figures = dict[tuple[str, tuple[str, ...]], float]


def parsed(text: str) -> Figures:
    """Every sample: its name and label values (in the order of the labels' names) with its value."""
    return {
        (
            sample.name.removeprefix("nanotasks_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def figures_of(db: Database) -> Figures:
    return parsed(exposition(db))
