"""Refused requests in the log."""

from __future__ import annotations

from structlog.testing import capture_logs

from nanotasks.gateway.refusals import Refusals


def test_a_flood_of_refusals_is_one_line_a_second() -> None:
    """With the number of those that were not told, apart for each channel and status."""
    now = [0.0]
    refusals = Refusals(lambda: now[0])
    with capture_logs() as lines:
        for _ in range(100):
            refusals.note("webhook", 401, {"what": "The signature is wrong.", "why": "It is old."})
        refusals.note("webhook", 404, {"what": "No such channel."})
        now[0] = 2.0
        refusals.note("webhook", 401, {"what": "The signature is wrong."})
    told = [(line["status"], line["reason"], line["more_since_the_last"]) for line in lines]
    assert told == [
        (401, "The signature is wrong. It is old.", 0),
        (404, "No such channel.", 0),
        (401, "The signature is wrong.", 99),
    ]
