"""When a row is due, against what NanoClaw 2 did (`tests/data/due.json`), and when the next one will be."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from nanotasks.clock import now_ms
from nanotasks.session import SessionFolder, open_inbound, open_outbound
from nanotasks.session.rows import NewRow, OutboundRow
from tests.unit.session.conftest import Runner

CASES = json.loads((Path(__file__).parents[2] / "data" / "due.json").read_text())["cases"]


def zoned(minutes: int, form: str) -> Any:
    return lambda at: at.astimezone(timezone(timedelta(minutes=minutes))).strftime(form)


# How each named form writes an instant.
FORMS: dict[str, Any] = {
    "iso_ms_z": lambda at: f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
    "iso_z": lambda at: f"{at:%Y-%m-%dT%H:%M:%SZ}",
    "iso_naive": lambda at: f"{at:%Y-%m-%dT%H:%M:%S}",
    "sqlite": lambda at: f"{at:%Y-%m-%d %H:%M:%S}",
    "sqlite_ms": lambda at: f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}",
    "sqlite_minute": lambda at: f"{at:%Y-%m-%d %H:%M}",
    "iso_minute": lambda at: f"{at:%Y-%m-%dT%H:%M}",
    "iso_minute_z": lambda at: f"{at:%Y-%m-%dT%H:%MZ}",
    "plus02:00": zoned(120, "%Y-%m-%dT%H:%M:%S+02:00"),
    "minus05:30": zoned(-330, "%Y-%m-%dT%H:%M:%S-05:30"),
    "space_plus02:00": zoned(120, "%Y-%m-%d %H:%M:%S+02:00"),
    "plus0200": zoned(120, "%Y-%m-%dT%H:%M:%S+0200"),
    "plus02": zoned(120, "%Y-%m-%dT%H:%M:%S+02"),
    "plus14:00": zoned(840, "%Y-%m-%dT%H:%M:%S+14:00"),
    "lower_z": lambda at: f"{at:%Y-%m-%dT%H:%M:%S}z",
    "space_z": lambda at: f"{at:%Y-%m-%d %H:%M:%S}Z",
    "space_before_z": lambda at: f"{at:%Y-%m-%dT%H:%M:%S} Z",
    "leading_space": lambda at: f" {FORMS['iso_ms_z'](at)}",
    "trailing_space": lambda at: f"{FORMS['iso_ms_z'](at)} ",
    "lower_t": lambda at: f"{at:%Y-%m-%dt%H:%M:%S}",
    "micros_z": lambda at: f"{at:%Y-%m-%dT%H:%M:%S.%f}Z",
    "comma_fraction": lambda at: f"{at:%Y-%m-%dT%H:%M:%S},500Z",
    "slashes": lambda at: f"{at:%Y/%m/%d %H:%M:%S}",
    "compact": lambda at: f"{at:%Y%m%dT%H%M%S}",
    "rfc": lambda at: f"{at:%a, %d %b %Y %H:%M:%S} GMT",
    "epoch_s": lambda at: str(int(at.timestamp())),
    "epoch_ms": lambda at: str(int(at.timestamp() * 1000)),
    "julian": lambda at: str(at.timestamp() / 86400 + 2440587.5),
    "utc_suffix": lambda at: f"{at:%Y-%m-%d %H:%M:%S} UTC",
}


def described(case: dict[str, Any]) -> str:
    return str(case.get("format", case.get("value", len(case.get("rows", [])))))


def text(case: dict[str, Any]) -> str | None:
    if "format" not in case:
        return case.get("value")
    return str(FORMS[case["format"]](datetime.now(UTC) + timedelta(hours=case["offset_hours"])))


INSERT = """
INSERT INTO messages_in (id, seq, kind, timestamp, content, status, tries, "trigger", on_wake, process_after)
VALUES (:id, :seq, :kind, 't', '{}', :status, :tries, :trigger, :on_wake, :process_after)
"""
DEFAULTS = {"kind": "chat", "status": "pending", "tries": 0, "trigger": 1, "on_wake": 0, "process_after": None}


def store(folder: SessionFolder, *rows: dict[str, Any]) -> None:
    connection = sqlite3.connect(folder.inbound_db)
    for number, row in enumerate(rows):
        connection.execute(INSERT, {**DEFAULTS, "id": f"r{number}", "seq": 2 * number + 2, **row})
    connection.commit()
    connection.close()


@pytest.mark.parametrize("case", [one for one in CASES if "row" in one], ids=described)
def test_recorded_rows(folder: SessionFolder, case: dict[str, Any]) -> None:
    """A row counts as due work when it is pending, may wake, and SQLite's datetime() of its time is not later."""
    store(folder, {"process_after": text(case), **case["row"]})
    with open_inbound(folder) as opened:
        assert opened.count_due() == int(case["due"])


@pytest.mark.parametrize("case", [one for one in CASES if "count" in one], ids=described)
def test_recorded_counts(folder: SessionFolder, case: dict[str, Any]) -> None:
    """Several rows count together."""
    store(folder, *case["rows"])
    with open_inbound(folder) as opened:
        assert opened.count_due() == case["count"]


LATER = [one for one in CASES if one.get("kind") == "deliver_after"]


@pytest.mark.parametrize("case", LATER, ids=described)
def test_recorded_delivery_times(folder: SessionFolder, runner: Runner, case: dict[str, Any]) -> None:
    """An outbound row's time is read as the instant it names, where NanoClaw 2 compared texts."""
    runner.say("o1", deliver_after=text(case))
    with open_outbound(folder) as opened:
        (row,) = opened.messages_after(0, 10)
    assert isinstance(row, OutboundRow) and row.deliver_after_ms is not None
    assert (row.deliver_after_ms <= now_ms()) == (case["offset_hours"] < 0)


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("hours", [-72, 48])
def test_a_delivery_time_is_read_in_every_form(folder: SessionFolder, runner: Runner, form: str, hours: int) -> None:
    """A reply is not given up because of the way in which its time is written."""
    at = datetime.now(UTC) + timedelta(hours=hours)
    runner.say("o1", deliver_after=FORMS[form](at))
    with open_outbound(folder) as opened:
        (row,) = opened.messages_after(0, 10)
    assert isinstance(row, OutboundRow) and row.deliver_after_ms is not None
    assert abs(row.deliver_after_ms - at.timestamp() * 1000) < 86_400_000


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("offset_s", [-7200, 0, 7200])
def test_the_next_instant_is_when_counting_begins(folder: SessionFolder, form: str, offset_s: int) -> None:
    """`next_due_ms` names the first second in which `count_due` counts the row, or None where it never will."""
    at = datetime(2026, 3, 1, 12, 34, 56, 789000, tzinfo=UTC) + timedelta(seconds=offset_s)
    store(folder, {"process_after": FORMS[form](at)})
    with open_inbound(folder) as opened:
        due = opened.next_due_ms()
        if due is None:
            assert opened.count_due(4_000_000_000_000) == 0
        else:
            assert (opened.count_due(due - 1), opened.count_due(due)) == (0, 1)


def test_the_next_instant_is_the_smallest(folder: SessionFolder) -> None:
    """A row without a time is due for ever; rows that only give context, are done or were acked do not count."""

    def row(name: str, **changes: Any) -> NewRow:
        return NewRow(name, "chat", "{}", 1000, **changes)

    with open_inbound(folder) as opened:
        assert opened.next_due_ms() is None
        opened.insert([row("context", trigger=0), row("done"), row("late", process_after_ms=9000)])
        opened.insert([row("early", process_after_ms=5999), row("acked", process_after_ms=2000)])
        opened.complete(["done"])
        assert opened.next_due_ms() == 2000
        assert opened.next_due_ms({"acked"}) == 5000
        assert opened.next_due_ms({"acked", "early", "late"}) is None
        opened.insert([row("now")])
        assert opened.next_due_ms() == 0
