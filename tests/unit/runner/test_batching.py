"""Which due rows make a prompt, on real files."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_runner.batching import Due
from agent_runner.inbound import Inbound
from agent_runner.outbound import Outbound
from tests.unit.runner.by_hand import INBOUND, SessionByHand


def due(session: SessionByHand, limit: int = 10, inbound: Inbound | None = None) -> Due:
    inbound = inbound or Inbound(str(session.inbound), str(session.outbound))
    with inbound.open() as reader:
        return inbound.due(reader, limit)


def ids(found: Due) -> list[str]:
    return [row.id for row in found.rows]


def post(session: SessionByHand, pattern: str) -> list[str]:
    """One row per letter: `t` asks for an answer, `c` is context."""
    return [session.post(trigger=int(letter == "t")) for letter in pattern]


def ack(session: SessionByHand, status: str, *row_ids: str) -> None:
    rows = [{"message_id": row_id, "status": status, "status_changed": "2026-01-01 00:00:00"} for row_id in row_ids]
    session.insert_outbound("processing_ack", rows)


def test_a_few_rows_all_come_in_order(session: SessionByHand) -> None:
    """Context and questions as they were written."""
    rows = post(session, "ctcc")
    assert ids(due(session)) == rows


def test_context_alone_makes_no_prompt(session: SessionByHand) -> None:
    """It waits for a row that asks for an answer."""
    post(session, "ccc")
    assert due(session) == Due()


def test_a_question_is_never_hidden_by_later_context(session: SessionByHand) -> None:
    """The newest ten rows would not hold it."""
    rows = post(session, "t" + "c" * 15)
    found = due(session)
    assert ids(found) == [rows[0], *rows[-9:]]
    assert set(found.overtaken) == set(rows[1:-9])


def test_much_context_before_a_question_leaves_the_newest(session: SessionByHand) -> None:
    """As in the original; what is older is overtaken and will not come after newer rows."""
    rows = post(session, "c" * 15 + "t")
    found = due(session)
    assert ids(found) == rows[-10:]
    assert set(found.overtaken) == set(rows[:6])


def test_a_backlog_is_worked_off_from_its_beginning(session: SessionByHand) -> None:
    """The oldest ten first, then the next, whether or not the host has synced the acks."""
    rows = post(session, "t" * 26)
    seen = []
    while found := ids(due(session)):
        seen.append(found)
        ack(session, "completed", *found)
    assert seen == [rows[:10], rows[10:20], rows[20:]]


def test_context_waits_while_questions_fill_the_prompt(session: SessionByHand) -> None:
    """No room is not overtaken: it joins the next prompt."""
    rows = post(session, "c" + "t" * 11)
    found = due(session)
    assert ids(found) == rows[1:11]
    assert found.overtaken == ()
    ack(session, "completed", *rows[1:11])
    assert ids(due(session)) == [rows[0], rows[11]]


@pytest.mark.parametrize("status", ["processing", "completed", "failed"])
def test_acked_rows_take_nobodys_place(session: SessionByHand, status: str) -> None:
    """They are left out before the limit is applied."""
    rows = post(session, "t" * 12)
    ack(session, status, *rows[2:])
    assert ids(due(session)) == rows[:2]


@pytest.mark.parametrize(
    ("columns", "is_due"),
    [
        ({"process_after": None}, True),
        ({"process_after": "2020-01-01T00:00:00.000Z"}, True),
        ({"process_after": "2020-01-01 00:00:00"}, True),
        ({"process_after": "2999-01-01T00:00:00Z"}, False),
        ({"process_after": "2999-01-01 00:00:00"}, False),
        ({"process_after": "garbage"}, False),
        ({"process_after": ""}, False),
        ({"status": "completed"}, False),
        ({"status": "failed"}, False),
        ({"status": "paused"}, False),
        ({"kind": "system"}, False),
        ({"kind": "task"}, True),
        ({"seq": None}, True),
    ],
)
def test_what_is_due(session: SessionByHand, columns: dict[str, Any], is_due: bool) -> None:
    """Pending, its time come in either format, and not for a waiting tool."""
    row = session.post(**columns)
    assert ids(due(session)) == ([row] if is_due else [])


def test_on_wake_rows_are_for_a_start_that_finds_them(session: SessionByHand) -> None:
    """The first look sees them, also if they have to wait for room; those that come later wait for the next start."""
    first = session.post(on_wake=1)
    others = post(session, "t" * 12)
    inbound = Inbound(str(session.inbound), str(session.outbound))
    found = due(session, 2, inbound)
    assert ids(found) == [first, others[0]]
    late = session.post(on_wake=1)
    assert ids(due(session, 20, inbound)) == [first, *others]
    assert ids(due(session, 20)) == [first, *others, late]


def test_an_old_file_without_the_newer_columns(tmp_path: Path) -> None:
    """`on_wake` and `trigger` read as the defaults they were added with."""
    old = INBOUND.replace("trigger INTEGER NOT NULL DEFAULT 1, ", "").replace(
        "source_session_id TEXT, on_wake INTEGER NOT NULL DEFAULT 0", "source_session_id TEXT"
    )
    session = SessionByHand(tmp_path, inbound_sql=old)
    row = session.post()
    found = due(session)
    assert ids(found) == [row]
    assert found.rows[0].trigger


def test_old_files_without_the_newer_tables(tmp_path: Path) -> None:
    """No destinations, no routing."""
    session = SessionByHand(tmp_path, inbound_sql=INBOUND.partition("CREATE TABLE destinations")[0])
    with Inbound(str(session.inbound), str(session.outbound)).open() as reader:
        assert reader.destinations() == ()
        assert not reader.session_routing().complete


def test_strange_values_in_columns_are_read_as_text(session: SessionByHand) -> None:
    """SQLite keeps any type anywhere, and text that is no UTF-8."""
    db = sqlite3.connect(session.inbound)
    db.execute("INSERT INTO messages_in (id, seq, kind, timestamp, content) VALUES ('b', 2, 'chat', 5, x'ff00')")
    db.execute(
        "INSERT INTO messages_in (id, seq, kind, timestamp, content) VALUES ('t', 4, 'chat', '', CAST(x'68ff' AS TEXT))"
    )
    db.commit()
    db.close()
    first, second = due(session).rows
    assert (first.content, first.timestamp) == ("\ufffd\0", "5")
    assert second.content == "h\ufffd"


def test_a_missing_file_is_an_operational_error(tmp_path: Path) -> None:
    """Which the loop bears until the host has made it."""
    inbound = Inbound(str(tmp_path / "inbound.db"), str(tmp_path / "outbound.db"))
    with pytest.raises(sqlite3.OperationalError), inbound.open() as reader:
        inbound.due(reader, 10)


def test_a_half_made_file_is_an_operational_error(tmp_path: Path) -> None:
    """The tables are not there yet."""
    inbound = Inbound(str(tmp_path / "inbound.db"), str(tmp_path / "outbound.db"))
    sqlite3.connect(tmp_path / "inbound.db").close()
    Outbound(str(tmp_path / "outbound.db"), inbound, create=True).close()
    (tmp_path / "inbound.db").touch()
    with pytest.raises(sqlite3.OperationalError, match="no such table"), inbound.open() as reader:
        inbound.due(reader, 10)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("tc", max_size=40), st.integers(1, 12))
def test_working_off_any_backlog(tmp_path_factory: pytest.TempPathFactory, pattern: str, limit: int) -> None:
    """Every question is prompted once and in order, every prompt is ascending and within the limit, and ends."""
    session = SessionByHand(tmp_path_factory.mktemp("backlog"))
    rows = [
        {"id": str(n), "seq": 2 * n, "kind": "chat", "timestamp": "", "trigger": int(c == "t"), "content": "x"}
        for n, c in enumerate(pattern, 1)
    ]
    session.insert_inbound("messages_in", rows)
    asked: list[int] = []
    while (found := due(session, limit)).rows:
        seqs = [row.seq or 0 for row in found.rows]
        assert seqs == sorted(seqs)
        assert len(seqs) <= limit
        asked += [row.seq or 0 for row in found.rows if row.trigger]
        ack(session, "completed", *ids(found), *found.overtaken)
    assert asked == [row["seq"] for row in rows if row["trigger"]]


@pytest.mark.parametrize(("tries", "overtaken"), [(0, True), (1, False), (2, False), (3, True)])
def test_a_row_that_died_with_an_agent_keeps_its_place_for_a_while(
    session: SessionByHand, tries: int, overtaken: bool
) -> None:
    """The agent sees a chat in order; but a row that keeps failing does not hold up the others for ever."""
    session.post(tries=tries, process_after="2999-01-01T00:00:00.000Z")
    later = session.post()
    elsewhere = session.post(platform_id="tg:200")
    assert ids(due(session)) == ([later] if overtaken else []) + [elsewhere]


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("T", [0]),
        ("TT", [0]),
        ("Tt", [0]),
        ("cTc", [1]),
        ("ctTt", [0, 1]),
        ("ttcT", [0, 1, 2]),
        ("ttTc", [0, 1, 3]),
        ("S", [0]),
        ("tSt", [0]),
    ],
)
def test_a_task_is_alone_and_keeps_its_place(session: SessionByHand, pattern: str, taken: list[int]) -> None:
    """No context with it, no other row, and nothing behind it is taken first. `T` is a task, `S` one with a script."""
    content = {"T": json.dumps({"prompt": "p"}), "S": json.dumps({"prompt": "p", "script": "true"})}
    rows = [
        session.post(content.get(c), kind="task" if c in content else "chat", trigger=int(c != "c")) for c in pattern
    ]
    found = due(session)
    assert ids(found) == [rows[at] for at in taken]
    assert found.overtaken == ()
