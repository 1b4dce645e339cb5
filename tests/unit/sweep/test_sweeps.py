"""The sweeps over the central database: what was lost or is due is signalled once, oldest first, and not too often."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.event import listen

from nanotasks.central import Database
from nanotasks.central.chats import Chat
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import ChatCounter, InboundEvent, InboundRoute, MediaBlob
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.intake.media import delete_left_over
from nanotasks.owners import Owner, boot_id, this_owner
from nanotasks.settings import Settings
from nanotasks.sweep import due, lost, ticks

CONFIG = Settings(host_id="a", sweep_batch=3, resignal_after_s=5.0)
OLD = 10_000
AN_HOUR = 3_600_000


def event(db: Database, number: int, *, chat: str = "room", age_ms: int = OLD, **values: Any) -> None:
    with db.write() as session:
        if session.get(ChatCounter, ("file", chat)) is None:
            session.add(ChatCounter(channel_type="file", platform_id=chat))
        session.add(
            InboundEvent(
                id=f"ev{number}",
                channel_type="file",
                platform_id=chat,
                platform_message_id=str(number),
                digest="",
                accept_order=number,
                kind="chat",
                timestamp="",
                content="{}",
                received_at=now_ms() - age_ms,
                **values,
            )
        )


def agent_session(db: Database, name: str, *, host: str = "a", **values: Any) -> None:
    with db.write() as session:
        if session.get(Host, host) is None:
            session.add(Host(id=host, heartbeat_at=now_ms(), created_at=0))
        session.flush()
        session.add(AgentGroup(id=f"g-{name}", name=name, folder=name, created_at=0, host_id=host))
        session.add(Chat(id=f"c-{name}", channel_type="file", platform_id=name, created_at=0))
        session.flush()
        session.add(
            AgentSession(
                id=name,
                agent_group_id=f"g-{name}",
                messaging_group_id=f"c-{name}",
                route_key=name,
                created_at=0,
                **values,
            )
        )


def delivery(db: Database, number: int, name: str, state: str, **values: Any) -> None:
    with db.write() as session:
        session.add(
            Delivery(
                id=f"d{number}",
                session_id=name,
                agent_group_id=f"g-{name}",
                host_id=values.pop("host_id", "a"),
                message_out_id=f"m{number}",
                seq=number,
                lane=values.pop("lane", f"{name}|file|{number}"),
                kind="chat",
                content="{}",
                state=state,
                created_at=now_ms() - OLD,
                **{"next_attempt_at": now_ms() - OLD, **values},
            )
        )


def test_a_tick_is_claimed_once_per_period(central: Database) -> None:
    """Two beats that send the same tick do its work once."""
    assert ticks.claim(central, "sweep.due", 5.0)
    assert not ticks.claim(central, "sweep.due", 5.0)
    assert ticks.claim(central, "sweep.signals", 5.0)
    with central.write() as session:
        session.execute(text("UPDATE ticks SET claimed_at = claimed_at - 4000 WHERE name = 'sweep.due'"))
    assert ticks.claim(central, "sweep.due", 5.0)


def test_a_tick_that_was_claimed_by_a_clock_ahead_is_free(central: Database) -> None:
    """A clock that is put back by an hour stops the sweeps for no hour."""
    assert ticks.claim(central, "sweep.due", 5.0)
    with central.write() as session:
        session.execute(text("UPDATE ticks SET claimed_at = claimed_at + 3600000"))
    assert ticks.claim(central, "sweep.due", 5.0)
    assert not ticks.claim(central, "sweep.due", 5.0)


def test_a_lost_event_is_signalled_once_per_chat(central: Database) -> None:
    """Ten waiting messages of one chat are one signal, and not again right away."""
    for number in range(10):
        event(central, number)
    assert lost.lost_signals(central, CONFIG) == [("route", "file", "room")]
    assert lost.lost_signals(central, CONFIG) == []
    with central.write() as session:
        session.execute(update(ChatCounter).values(signalled_at=ChatCounter.signalled_at - 5000))
    assert lost.lost_signals(central, CONFIG) == [("route", "file", "room")]


def test_the_oldest_chats_come_first_and_no_more_than_the_batch(central: Database) -> None:
    """One sweep signals at most its batch, from the oldest on; the rest comes with the next."""
    for number in range(5):
        event(central, number, chat=f"room{number}", age_ms=2_000 + 1_000 * number)
    assert lost.lost_signals(central, CONFIG) == [("route", "file", f"room{number}") for number in (4, 3, 2)]
    assert lost.lost_signals(central, CONFIG) == [("route", "file", f"room{number}") for number in (1, 0)]


def test_chats_that_cannot_be_routed_crowd_out_nobody(central: Database) -> None:
    """A batch full of chats that do not move does not come first for ever."""
    for number in range(4):
        event(central, number, chat=f"room{number}", age_ms=2 * OLD - number)
    stuck = ChatCounter.platform_id != "room3"
    with central.write() as session:
        session.execute(update(ChatCounter).where(stuck).values(signalled_at=now_ms() - OLD))
    assert lost.lost_signals(central, CONFIG)[0] == ("route", "file", "room3")


@pytest.mark.parametrize(
    ("age_ms", "values"),
    [
        (0, {}),  # its own signal is on the way
        (OLD, {"state": "routed"}),  # done
        (OLD, {"state": "dead"}),
        (OLD, {"next_try_at": 2**50}),  # failed a moment ago
    ],
)
def test_events_that_need_no_signal(central: Database, age_ms: int, values: dict[str, Any]) -> None:
    """Young, finished and pausing events are left alone."""
    event(central, 1, age_ms=age_ms, **values)
    assert lost.lost_signals(central, CONFIG) == []


def route(db: Database, number: int, name: str, **values: Any) -> None:
    event(db, number, state="routed")
    with db.write() as session:
        session.add(
            InboundRoute(
                event_id=f"ev{number}",
                session_id=name,
                agent_group_id=f"g-{name}",
                trigger=1,
                inbound_id=str(number),
                created_at=now_ms() - OLD,
                **values,
            )
        )


def test_a_worker_that_begins_takes_every_signal_for_lost(central: Database) -> None:
    """However young the row is, and whoever signalled it a moment ago: the worker before may have died with it."""
    event(central, 1, age_ms=0)
    agent_session(central, "s1", next_due_at=1)
    route(central, 2, "s1")
    with central.write() as session:
        session.execute(update(InboundRoute).values(created_at=now_ms()))
    assert lost.lost_signals(central, CONFIG) == []
    for _ in range(2):
        found = lost.lost_signals(central, CONFIG, at_start=True)
        assert found == [("route", "file", "room"), ("append", "s1", "a")]
        assert due.due_signals(central, CONFIG, at_start=True) == [("wake", "s1", "a")]
    assert lost.lost_signals(central, CONFIG) == due.due_signals(central, CONFIG) == []


def test_an_unappended_route_is_signalled_to_its_host(central: Database) -> None:
    """Several waiting routes of a session are one signal to the host that owns its files."""
    agent_session(central, "s1", host="b")
    for number in (1, 2):
        route(central, number, "s1")
    assert lost.lost_signals(central, CONFIG) == [("append", "s1", "b")]
    assert lost.lost_signals(central, CONFIG) == []


def test_sessions_that_cannot_be_appended_to_crowd_out_nobody(central: Database) -> None:
    """A batch full of sessions with unusable files does not come first for ever."""
    for number in range(4):
        agent_session(central, f"s{number}")
        route(central, number, f"s{number}", signalled_at=now_ms() - OLD if number < 3 else None)
    assert ("append", "s3", "a") in lost.lost_signals(central, CONFIG)


def test_a_route_whose_settlement_was_interrupted_is_looked_at(central: Database) -> None:
    """Without an end after some seconds a session is settled anew, also where an agent was faster than its append."""
    long_ago = now_ms() - 2 * lost.UNSETTLED_MS
    agent_session(central, "idle")
    agent_session(central, "overtaken", next_due_at=0)
    agent_session(central, "quick")
    route(central, 1, "idle", state="appended", appended_at=long_ago)
    route(central, 2, "overtaken", state="appended", appended_at=long_ago)
    route(central, 3, "quick", state="appended", appended_at=now_ms())
    assert lost.lost_signals(central, CONFIG) == [("deliver", "idle", "a"), ("deliver", "overtaken", "a")]
    assert lost.lost_signals(central, CONFIG) == []


def test_a_signal_of_the_future_silences_nothing_that_was_lost(central: Database) -> None:
    """It was marked by a clock that was put back since, and what it was for may be lost."""
    ahead = now_ms() + AN_HOUR
    event(central, 1)
    agent_session(central, "s1")
    agent_session(central, "s2")
    route(central, 2, "s1", signalled_at=ahead)
    route(central, 3, "s2", state="appended", appended_at=now_ms() - 2 * lost.UNSETTLED_MS, signalled_at=ahead)
    with central.write() as session:
        session.execute(update(ChatCounter).values(signalled_at=ahead))
    wanted = [("route", "file", "room"), ("append", "s1", "a"), ("deliver", "s2", "a")]
    assert lost.lost_signals(central, CONFIG) == wanted
    assert lost.lost_signals(central, CONFIG) == []


def test_what_was_written_in_the_future_is_not_young(central: Database) -> None:
    """A clock that was put back by an hour hides nothing for an hour whose signal was lost."""
    ahead = now_ms() + AN_HOUR
    event(central, 1, age_ms=-AN_HOUR)
    agent_session(central, "s1")
    agent_session(central, "s2")
    route(central, 2, "s1")
    route(central, 3, "s2", state="appended", appended_at=ahead)
    with central.write() as session:
        session.execute(update(InboundRoute).values(created_at=ahead))
    wanted = [("route", "file", "room"), ("append", "s1", "a"), ("deliver", "s2", "a")]
    assert lost.lost_signals(central, CONFIG) == wanted


def test_sessions_that_cannot_be_started_crowd_out_nobody(central: Database) -> None:
    """Failed starts wait for their time, and those that are always due go behind those never signalled."""
    agent_session(central, "failed", next_due_at=0, wake_retry_at=2**50)
    for number in range(4):
        agent_session(central, f"s{number}", next_due_at=0, signalled_at=now_ms() - OLD if number < 3 else None)
    woken = due.due_signals(central, CONFIG)
    assert woken[0] == ("wake", "s3", "a")
    assert ("wake", "failed", "a") not in woken


def test_a_due_session_is_signalled_once(central: Database) -> None:
    """A session whose row is due is woken; one that is due later, or closed, is not."""
    agent_session(central, "now", next_due_at=now_ms() - 1)
    agent_session(central, "later", next_due_at=now_ms() + 60_000)
    agent_session(central, "closed", next_due_at=1, status="closed")
    agent_session(central, "idle")
    assert due.due_signals(central, CONFIG) == [("wake", "now", "a")]
    assert due.due_signals(central, CONFIG) == []


def test_a_session_that_became_due_again_is_signalled_at_once(central: Database) -> None:
    """The spacing is for one due time; a later due time has its own signal."""
    agent_session(central, "s1", next_due_at=now_ms() - 1)
    assert due.due_signals(central, CONFIG)
    with central.write() as session:
        session.execute(update(AgentSession).values(signalled_at=AgentSession.next_due_at - 1))
    assert due.due_signals(central, CONFIG) == [("wake", "s1", "a")]


def test_due_attempts_are_signalled_with_their_number(central: Database) -> None:
    """A failed delivery's next attempt is sent when it is due, as its own task."""
    agent_session(central, "s1")
    delivery(central, 1, "s1", "retrying", attempts=2, next_attempt_at=now_ms() - 1_000)
    delivery(central, 2, "s1", "parked", attempts=7, next_attempt_at=now_ms() - 2_000)
    delivery(central, 3, "s1", "retrying", attempts=1, next_attempt_at=now_ms() + 60_000)
    assert due.due_signals(central, CONFIG) == [("attempt", "d2", "a", 8), ("attempt", "d1", "a", 3)]
    assert due.due_signals(central, CONFIG) == []


def test_unfinished_deliveries_are_looked_at_again(central: Database) -> None:
    """Rows never tried, sends whose sender is gone and unprojected outcomes bring one signal per session."""
    agent_session(central, "s1")
    agent_session(central, "s2", host="b")
    delivery(central, 1, "s1", "pending")
    delivery(central, 2, "s1", "delivered", finished_at=now_ms() - OLD)
    delivery(central, 3, "s2", "sending", send_started_at=now_ms() - 60_000, host_id="b")
    delivery(central, 5, "s2", "pending", host_id="b")
    delivery(central, 4, "s2", "delivered", finished_at=1, projected_at=1, host_id="b")
    assert sorted(due.due_signals(central, CONFIG)) == [("deliver", "s1", "a"), ("deliver", "s2", "b")]
    assert due.due_signals(central, CONFIG) == []


def test_a_signal_of_the_future_silences_nothing_that_is_due(central: Database) -> None:
    """Neither a session, nor an attempt, nor an unfinished delivery waits until a clock that was ahead is reached."""
    ahead = now_ms() + AN_HOUR
    agent_session(central, "s1", next_due_at=now_ms() - 1, signalled_at=ahead)
    agent_session(central, "s2")
    delivery(central, 1, "s2", "retrying", attempts=1, signalled_at=ahead)
    delivery(central, 2, "s2", "pending", signalled_at=ahead)
    assert due.due_signals(central, CONFIG) == [("wake", "s1", "a"), ("attempt", "d1", "a", 2), ("deliver", "s2", "a")]
    assert due.due_signals(central, CONFIG) == []


def test_attempts_that_nobody_makes_crowd_out_nobody(central: Database) -> None:
    """A host that is down may have a batch full of attempts that are due for ever; those of the others come first."""
    agent_session(central, "s1", host="down")
    agent_session(central, "s2")
    for number in range(3):
        delivery(central, number, "s1", "retrying", attempts=1, host_id="down", signalled_at=now_ms() - OLD)
    delivery(central, 3, "s2", "retrying", attempts=1, next_attempt_at=now_ms() - 1)
    assert due.due_signals(central, CONFIG)[0] == ("attempt", "d3", "a", 2)


@pytest.mark.parametrize(
    ("state", "values"),
    [("pending", {}), ("sending", {}), ("delivered", {"finished_at": 1})],
    ids=["never tried", "never finished", "never told"],
)
def test_deliveries_that_nobody_finishes_crowd_out_nobody(
    central: Database, state: str, values: dict[str, int]
) -> None:
    """A batch full of sessions whose deliveries do not move does not come first for ever."""
    for number in range(4):
        agent_session(central, f"s{number}")
        delivery(central, number, f"s{number}", state, signalled_at=now_ms() - OLD if number < 3 else None, **values)
    assert due.due_signals(central, CONFIG)[0] == ("deliver", "s3", "a")


def test_a_send_of_a_dead_process_of_this_host_is_looked_at_at_once(sqlite_central: Database) -> None:
    """After a kill -9 a lane does not wait for the deadline of a send nobody makes."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    agent_session(sqlite_central, "s1")
    dead = str(Owner("a", boot_id(), ended.pid, 1))
    agent_session(sqlite_central, "s2")
    under_way = {"send_started_at": now_ms(), "next_attempt_at": now_ms() + 60_000}
    delivery(sqlite_central, 1, "s1", "sending", sending_owner=dead, **under_way)
    delivery(sqlite_central, 2, "s2", "sending", sending_owner=str(this_owner("a")), **under_way)
    assert due.due_signals(sqlite_central, CONFIG) == []
    assert due.due_signals(sqlite_central, CONFIG, "a") == [("deliver", "s1", "a")]
    assert due.due_signals(sqlite_central, CONFIG, "a") == []


def test_a_row_behind_one_that_is_tried_again_is_left_alone(central: Database) -> None:
    """Hundreds of rows that wait for their lane's head take no place in the batch."""
    agent_session(central, "s1")
    delivery(central, 1, "s1", "retrying", attempts=1, next_attempt_at=now_ms() + 60_000, lane="x")
    delivery(central, 2, "s1", "pending", lane="x")
    assert due.due_signals(central, CONFIG) == []


def test_the_sweeps_read_indexes_only(sqlite_central: Database) -> None:
    """However long the history is, no sweep goes through the ledger or the sessions row by row."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.startswith(("SELECT", "UPDATE")):
            raw = connection.connection.cursor()
            plans.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    agent_session(sqlite_central, "s1", next_due_at=1)
    delivery(sqlite_central, 1, "s1", "pending")
    delivery(sqlite_central, 2, "s1", "retrying", attempts=1)
    listen(sqlite_central.engine, "before_cursor_execute", explain)
    assert len(due.due_signals(sqlite_central, CONFIG)) == 3
    due.due_signals(sqlite_central, CONFIG, "a")
    due.next_due_ms(sqlite_central, CONFIG, "a")
    scans = [plan for plan in plans if plan.startswith("SCAN") and "USING" not in plan]
    assert scans == []


def test_a_hosts_alarm_knows_its_next_due_time(central: Database) -> None:
    """The smallest due time of this host's sessions and attempts that nobody was signalled for."""
    assert due.next_due_ms(central, CONFIG, "a") is None
    agent_session(central, "s1", next_due_at=5_000)
    agent_session(central, "s2", host="b", next_due_at=1_000)
    assert due.next_due_ms(central, CONFIG, "a") == 5_000
    delivery(central, 1, "s1", "retrying", next_attempt_at=3_000)
    assert due.next_due_ms(central, CONFIG, "a") == 3_000
    due.due_signals(central, CONFIG, "a")
    assert due.next_due_ms(central, CONFIG, "a") is None


def test_an_alarm_does_not_turn_round_for_a_start_that_is_put_off(central: Database) -> None:
    """A session that is due and may not be started yet is no time to wake at; it is found when it may be."""
    agent_session(central, "s1", next_due_at=now_ms() - 1, wake_retry_at=now_ms() + 60_000)
    assert due.next_due_ms(central, CONFIG, "a") is None
    assert due.due_signals(central, CONFIG, "a") == []
    with central.write() as session:
        session.execute(update(AgentSession).values(wake_retry_at=now_ms()))
    assert due.due_signals(central, CONFIG, "a") == [("wake", "s1", "a")]


def test_an_event_that_failed_is_routed_again_when_its_time_has_come(central: Database) -> None:
    """The alarm meets it, once for each try, and leaves alone what merely waits."""
    event(central, 1, chat="calm")
    event(central, 2, next_try_at=3_000)
    assert due.next_due_ms(central, CONFIG, "a") == pytest.approx(3_000, abs=1000)
    assert due.due_signals(central, CONFIG, "a") == [("route", "file", "room")]
    assert due.next_due_ms(central, CONFIG, "a") is None
    assert due.due_signals(central, CONFIG, "a") == []
    later = now_ms() + 60_000
    with central.write() as session:
        session.execute(update(InboundEvent).where(InboundEvent.id == "ev2").values(next_try_at=later))
    assert due.next_due_ms(central, CONFIG, "a") == pytest.approx(later, abs=1000)
    assert due.due_signals(central, CONFIG, "a") == []


def test_attachments_that_nobody_waits_for_are_deleted_after_a_while(central: Database) -> None:
    """Those of messages that no agent got are kept for a time, in which they may be routed once more."""
    event(central, 0, state="dropped")
    event(central, 2, chat="den", state="pending")
    agent_session(central, "one")
    route(central, 1, "one")
    with central.write() as session:
        for number in range(3):
            for age in (0, 1000):
                blob_id, event_id = f"b{number}-{age}", f"ev{number}"
                session.add(MediaBlob(id=blob_id, event_id=event_id, size_bytes=1, data=b"x", created_at=2000 - age))
    with central.write_core() as connection:
        delete_left_over(connection, 1500, 10)
        left = set(connection.execute(select(MediaBlob.id)).scalars())
    assert left == {"b0-0", "b1-0", "b1-1000", "b2-0", "b2-1000"}


def test_a_message_for_later_is_signalled_when_its_time_comes(central: Database) -> None:
    """The alarm knows the time, and a row of its lane that is tried again comes first."""
    agent_session(central, "one")
    now = now_ms()
    delivery(central, 1, "one", "pending", lane="l1", next_attempt_at=now - 10)
    delivery(central, 2, "one", "pending", lane="l2", next_attempt_at=now + 60_000)
    assert due.next_due_ms(central, CONFIG, "a") == now - 10
    assert due.due_signals(central, CONFIG, "a") == [("deliver", "one", "a")]
    assert due.next_due_ms(central, CONFIG, "a") == now + 60_000
    delivery(central, 3, "one", "retrying", lane="l2", next_attempt_at=now + 90_000, attempts=1)
    assert due.next_due_ms(central, CONFIG, "a") == now + 90_000
