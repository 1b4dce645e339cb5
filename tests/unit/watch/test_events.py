"""Events are read from rows: each once, in order, with its fields, late ones too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event as listening
from sqlalchemy import update
from sqlalchemy.orm import Session

from nanotasks.central import Database, leases
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import Drop, InboundEvent, InboundRoute
from nanotasks.central.hosts import Instance
from nanotasks.central.meta import AuditEntry, record
from nanotasks.central.series import TaskAttempt
from nanotasks.channels.contract import PermanentError, TransientError
from nanotasks.clock import now_ms
from nanotasks.deliver.service import attempt, deliver_session
from nanotasks.errors import UsageError
from nanotasks.owners import Owner, this_owner
from nanotasks.settings import Settings
from nanotasks.sweep.hosts import heartbeat, mark_stopped
from nanotasks.testing import ScriptedSender
from nanotasks.watch import stream
from nanotasks.watch.kinds import KINDS, wanted
from nanotasks.watch.rows import SOURCES
from nanotasks.watch.sources import Event, Only
from nanotasks.watch.stream import Stream, read
from tests.scene import HOST, Bells, Speaker, Stage
from tests.unit.watch.scheduled import run


def everything(db: Database, **only: Any) -> list[Event]:
    return list(read(db, -1, now_ms(), Only(**only)))


def names(events: list[Event]) -> list[str]:
    return [one.name for one in events]


def deliver(andy: Speaker) -> None:
    deliver_session(andy.stage.db, andy.stage.settings, andy.id, bells=Bells())


def audit(db: Database, at: int, target: str) -> None:
    with db.write() as session:
        session.add(AuditEntry(at=at, actor="os:test", action="test", target=target))


def targets(events: Iterator[Event]) -> list[str]:
    return [one.fields["target"] for one in events]


def test_every_kind_is_read_from_somewhere(central: Database) -> None:
    """The sources give the kinds of the catalogue and no others."""
    given = {name for source in SOURCES for name in source.names}
    assert given == {kind.name for kind in KINDS}


def test_the_way_of_a_message(andy: Speaker, sender: ScriptedSender) -> None:
    """From its acceptance to the reply that fails, is tried again and arrives; every line has its kind's fields."""
    db, now = andy.stage.db, now_ms()
    andy.hear("m1:ag-andy")
    with db.write() as session:
        session.execute(update(InboundEvent).values(received_at=now - 900))
        session.execute(update(InboundRoute).values(created_at=now - 800, appended_at=now - 700))
        session.add(
            Instance(
                id="i1",
                session_id=andy.id,
                agent_group_id=andy.agent_id,
                host_id=HOST,
                runtime="process",
                epoch=3,
                started_at=now - 600,
                running_at=now - 500,
            )
        )
    sender.fail("hello", TransientError("busy"))
    andy.say("hello", in_reply_to="m1:ag-andy")
    deliver(andy)
    (delivery,) = andy.stage.deliveries()
    with db.write() as session:
        session.execute(update(Delivery).values(next_attempt_at=0))
    attempt(db, andy.stage.settings, delivery.id, 2, bells=Bells())
    andy.ack("completed", "m1:ag-andy")
    deliver(andy)
    with db.write() as session:
        session.execute(update(Instance).values(ended_at=now_ms(), end_reason="stopped: idle", exit_code=0))
    seen = everything(db)
    assert names(seen) == [
        "message.accepted",
        "message.routed",
        "message.appended",
        "session.woken",
        "instance.started",
        "delivery.entered",
        "delivery.attempted",
        "delivery.retrying",
        "delivery.attempted",
        "delivery.delivered",
        "message.answered",
        "instance.ended",
    ]
    lines = [json.loads(one.line) for one in seen]
    by_name = {kind.name: kind for kind in KINDS}
    for line in lines:
        assert list(line) == ["at", "event", *by_name[line["event"]].fields]
    assert lines[0]["at"].endswith("Z") and len(lines[0]["at"]) == len("2026-03-01T12:34:56.789Z")
    assert [line.get("message") for line in lines[:3]] == ["m1"] * 3
    assert lines[2]["inbound"] == lines[5]["in_reply_to"] == lines[10]["inbound"] == "m1:ag-andy"
    assert {line["delivery"] for line in lines[5:10]} == {delivery.id}
    assert (lines[7]["attempt"], lines[7]["error_class"], lines[7]["next_attempt_at"]) == (1, "transient", None)
    assert (lines[9]["attempts"], lines[11]["reason"], lines[11]["exit_code"]) == (2, "stopped: idle", 0)
    assert "hello" not in "".join(one.line for one in seen).replace(lines[5]["message_out"], "")


def test_what_waits_says_until_when(andy: Speaker, sender: ScriptedSender) -> None:
    """The next attempt's time is there as long as it is the next."""
    sender.fail("hello", TransientError("busy"))
    andy.say("hello")
    deliver(andy)
    (failed,) = everything(andy.stage.db, names={"delivery.retrying"})
    assert failed.fields["next_attempt_at"] > json.loads(failed.line)["at"]


def test_a_death_and_a_drop(andy: Speaker, sender: ScriptedSender) -> None:
    """A reply that is refused for good, and a message that nobody wanted."""
    db = andy.stage.db
    sender.fail("hello", PermanentError("too long"))
    andy.say("hello")
    deliver(andy)
    with db.write() as session:
        session.add(
            Drop(id="d1", channel_type="scripted", platform_id="x", reason="not_mentioned", created_at=now_ms())
        )
    seen = {one.name: one.fields for one in everything(db)}
    assert seen["delivery.dead"]["error_class"] == "permanent"
    assert "delivery.retrying" not in seen
    assert seen["message.dropped"]["reason"] == "not_mentioned" and seen["message.dropped"]["id"] is None


def test_leases_and_hosts(stage: Stage) -> None:
    """What no other row tells: a takeover with both owners, a host that comes, goes and comes again."""
    db, other = stage.db, Settings(host_id="there")
    dead = Owner("elsewhere", "boot", 1, 1)
    assert leases.claim(db, "session:x", dead, -1)
    held = leases.claim(db, "session:x", this_owner(HOST), 60)
    assert held is not None
    leases.free_of_hosts(db, [HOST])
    heartbeat(db, other)
    heartbeat(db, other)
    mark_stopped(db, other)
    heartbeat(db, other)
    seen = everything(db)
    assert names(seen) == ["lease.taken_over", "lease.freed", "host.up", "host.down", "host.up"]
    assert seen[0].fields == {
        "lease": "session:x",
        "owner": str(this_owner(HOST)),
        "from_owner": str(dead),
        "epoch": 2,
    }
    assert seen[3].fields == {"host": "there", "reason": "stopped"}


def test_runs(andy: Speaker) -> None:
    """An occurrence that failed once and then ran, and one that was missed."""
    db, now = andy.stage.db, now_ms()
    with db.write() as session:
        run(session, andy, "s", at=1, state="ended", outcome="succeeded", attempts=2, finished_at=now - 10)
        run(session, andy, "s", at=2, state="ended", outcome="missed", finished_at=now - 5)
        attempt_of(session, "run-s-1", 1, now - 40, now - 30, "failed")
        attempt_of(session, "run-s-1", 2, now - 20, now - 10, "succeeded")
    seen = everything(db)
    assert names(seen) == ["run.claimed", "run.retrying", "run.claimed", "run.ended", "run.ended"]
    assert [one.fields["outcome"] for one in seen[3:]] == ["succeeded", "missed"]


def test_only_what_is_wanted(andy: Speaker, stage: Stage, sender: ScriptedSender) -> None:
    """By kind, by session and by agent group; a word that means nothing is refused."""
    bob = stage.session("bob", stage.agent("bob"))
    for one in (andy, bob):
        one.say("hello")
        deliver(one)
    audit(stage.db, now_ms(), "x")
    assert {event.fields["session"] for event in everything(stage.db, session_id=bob.id)} == {bob.id}
    assert {event.fields["session"] for event in everything(stage.db, group_id="ag-andy")} == {andy.id}
    assert names(everything(stage.db, names=wanted(["delivery.entered", "audit"]))).count("delivery.entered") == 2
    assert wanted(["host"]) == {"host.up", "host.down"}
    with pytest.raises(UsageError, match="deliverance"):
        wanted(["deliverance"])


def test_rows_of_one_millisecond_are_all_shown(central: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than a page holds, and some that come when the others were shown."""
    monkeypatch.setattr("nanotasks.watch.sources.PAGE", 3)
    now = now_ms()
    followed = Stream(central, Only(), now - 1000)
    for number in range(10):
        audit(central, now - 500, str(number))
    assert targets(followed.until_now()) == [str(number) for number in range(10)]
    audit(central, now - 500, "late")
    assert targets(followed.until_now()) == ["late"]
    assert targets(followed.until_now()) == []


def test_messages_of_one_millisecond_are_in_accept_order(central: Database) -> None:
    """A chat's messages are accepted many to a commit, and their ids say nothing of their order."""
    with central.write() as session:
        session.add_all(
            InboundEvent(
                id=f"ev-{9 - number}",
                channel_type="scripted",
                platform_id="room",
                platform_message_id=f"m{number}",
                digest="",
                accept_order=number,
                kind="chat",
                timestamp="",
                content="{}",
                received_at=now_ms(),
            )
            for number in range(10)
        )
        session.flush()
        session.execute(update(InboundEvent).values(received_at=1000))
    assert [one.fields["message"] for one in everything(central)] == [f"m{number}" for number in range(10)]


def test_what_commits_late_is_shown_late(central: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may appear behind what was shown, by as much as a task may live; it is shown once."""
    now = now_ms()
    followed = Stream(central, Only(), now - 200_000)
    audit(central, now - 10, "first")
    assert targets(followed.until_now()) == ["first"]
    audit(central, now - stream.FAR_MS + 10_000, "late by minutes")
    assert targets(followed.until_now()) == []
    monkeypatch.setattr(stream, "FAR_EVERY_S", 0.0)
    assert targets(followed.until_now()) == ["late by minutes"]
    assert targets(followed.until_now()) == []


def test_an_open_transaction_is_waited_for(central: Database) -> None:
    """Its row has the earlier time and the later commit, and is not lost."""
    if central.dialect != "postgresql":
        pytest.skip("SQLite lets one writer write at a time")
    followed = Stream(central, Only(), now_ms() - 1)
    with central.write() as slow:
        record(slow, "os:slow", "test", "slow", {})
        slow.flush()
        with central.write() as quick:
            record(quick, "os:quick", "test", "quick", {})
        assert targets(followed.until_now()) == ["quick"]
    assert targets(followed.until_now()) == ["slow"]


def test_little_is_remembered_of_a_long_history(sqlite_central: Database) -> None:
    """What is too old to be looked at again is forgotten."""
    now = now_ms()
    with sqlite_central.write() as session:
        session.add_all(
            AuditEntry(at=now - 2 * stream.FAR_MS - number, actor="a", action="b", target="c") for number in range(50)
        )
    followed = Stream(sqlite_central, Only(), 0)
    assert len(list(followed.until_now())) == 50
    assert followed._seen == {}


def test_events_are_read_by_indexes(sqlite_central: Database) -> None:
    """No source scans a table, whatever is asked for."""
    seen: list[tuple[str, Any]] = []
    listening.listen(
        sqlite_central.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, *_rest: seen.append((statement, parameters)),
    )
    everything(sqlite_central)
    queries = [one for one in seen if one[0].startswith("SELECT")]
    assert len(queries) == len(SOURCES)
    with sqlite_central.read() as session:
        for statement, parameters in queries:
            for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                assert not row[3].startswith("SCAN"), f"{row[3]}:\n{statement}"


def attempt_of(session: Session, run_id: str, number: int, claimed_at: int, finished_at: int, outcome: str) -> None:
    session.add(
        TaskAttempt(
            run_id=run_id,
            number=number,
            inbound_id=f"i{number}",
            claimed_at=claimed_at,
            finished_at=finished_at,
            outcome=outcome,
        )
    )
