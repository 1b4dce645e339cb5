"""Everything that waits for another try, from the command line: looking, trying now, giving up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nanotasks.central import Database
from nanotasks.central.changes import StateChange, changed
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.meta import AuditEntry
from nanotasks.central.series import TaskAttempt, TaskRun
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from tests.unit.ops.cli.command_line import Cli

MINUTE = 60_000
TASK = "5f0c2a34-0000-4000-8000-000000000001"


@pytest.fixture
def session_id(family: Cli) -> str:
    """A session of andy in the family chat."""
    made: str = family("sessions", "create", "andy", "file:family", "--json").json["id"]
    return made


@pytest.fixture
def delivery(family: Cli, session_id: str, central_here: Database) -> str:
    """A reply that the platform refused with 429, at its first attempt."""
    made: str = family("deliveries", "create", session_id, "--text", "hello", "--json").json["id"]
    values = {"state": "retrying", "attempts": 1, "error_class": "rate_limited", "error_text": "429"}
    with central_here.write() as session:
        session.execute(update(Delivery).values(**values, next_attempt_at=now_ms() + MINUTE, first_attempt_at=now_ms()))
        session.add(
            DeliveryAttempt(
                delivery_id=made,
                number=1,
                started_at=now_ms(),
                finished_at=now_ms(),
                outcome="rate_limited",
                error_text="429",
                worker="here/1/2/3",
                task_id=TASK,
            )
        )
    return made


@pytest.fixture
def event(family: Cli, central_here: Database) -> str:
    """A message whose routing failed once."""
    with central_here.write() as session:
        session.add(
            InboundEvent(
                id="ev-1",
                channel_type="file",
                platform_id="family",
                platform_message_id="m1",
                digest="",
                accept_order=1,
                kind="chat",
                timestamp="",
                content='{"text":"hello"}',
                received_at=1,
                tries=1,
                error="ValueError: no",
                first_failed_at=now_ms(),
                next_try_at=now_ms() + MINUTE,
            )
        )
        failure = {"tries": 1, "error": "ValueError: no", "worker": "here/1/2/3", "task": TASK[::-1]}
        changed(session, "message.retrying", "ev-1", failure)
    return "ev-1"


@pytest.fixture
def asleep(family: Cli, session_id: str, event: str, central_here: Database) -> str:
    """A session with a message, whose agent could not be started twice."""
    with central_here.write() as session:
        session.execute(update(InboundEvent).values(state="routed", next_try_at=None))
        agent_session = session.get_one(AgentSession, session_id)
        agent_session.wake_failures, agent_session.wake_error = 2, "no such image"
        agent_session.wake_retry_at = now_ms() + MINUTE
        session.add(
            InboundRoute(
                event_id=event,
                session_id=session_id,
                agent_group_id=agent_session.agent_group_id,
                trigger=1,
                inbound_id="m1:andy",
                reply_channel_type="file",
                reply_platform_id="family",
                state="appended",
                created_at=now_ms() - MINUTE,
            )
        )
        for tries in (1, 2):
            changed(
                session, "wake.failed", session_id, {"tries": tries, "error": f"no {tries}", "task": f"wake-{tries}"}
            )
    return session_id


@pytest.fixture
def run(family: Cli, central_here: Database) -> str:
    """A run of a scheduled task that failed once."""
    family("task", "create", "Sing", "--cron", "0 9 * * *", "--name", "song", "--group", "andy", "--chat", "Family")
    with central_here.write() as session:
        found = session.scalars(select(TaskRun)).one()
        found.state, found.attempts, found.error_class, found.error_text = "retrying", 1, "overload", "busy"
        found.claimed_at, found.due_at = now_ms(), now_ms() + MINUTE
        session.add(
            TaskAttempt(
                run_id=found.id,
                number=1,
                inbound_id="t1",
                claimed_at=now_ms(),
                finished_at=now_ms(),
                outcome="failed",
                error_class="overload",
                error_text="busy",
            )
        )
        return found.id


@pytest.fixture
def audits(central_here: Database) -> Iterator[list[tuple[str, str]]]:
    """The audit rows that the test made, filled in by `audited`."""
    with central_here.write() as session:
        session.execute(delete(AuditEntry))
    yield []


def audited(db: Database) -> list[tuple[str, str]]:
    with db.read() as session:
        return [(one.action, one.target) for one in session.scalars(select(AuditEntry).order_by(AuditEntry.id))]


def rows(family: Cli, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = family("retry", "list", *options, "--json").json
    return found


def state_of(session: Session, delivery: str) -> str:
    return session.get_one(Delivery, delivery).state


def test_nothing_waits(family: Cli) -> None:
    """An empty list says so, and as JSON is empty."""
    assert "Nothing waits" in family("retry", "list").err
    assert rows(family) == []


def test_one_list_of_all_kinds(family: Cli, delivery: str, asleep: str, run: str, central_here: Database) -> None:
    """What, why, class, which attempt of how many, when; the next one first."""
    with central_here.write() as session:
        session.execute(update(InboundEvent).values(state="pending", next_try_at=1))
        session.execute(update(AgentSession).values(append_error="disk full"))
        session.execute(update(InboundRoute).values(state="pending"))
    found = {row["kind"]: row for row in rows(family)}
    assert {kind: (row["id"], row["try"], row["class"], row["error"]) for kind, row in found.items()} == {
        "intake": ("ev-1", "2 of 3", None, "ValueError: no"),
        "append": (asleep, None, None, "disk full"),
        "wake": (asleep, "3", None, "no such image"),
        "delivery": (delivery, "2", "rate_limited", "429"),
        "run": (run, "2 of 3", "overload", "busy"),
    }
    assert rows(family)[0]["kind"] == "intake"
    assert found["intake"]["next_at"].endswith("Z")
    assert (found["delivery"]["worker"], found["delivery"]["task_id"]) == ("here/1/2/3", TASK)
    assert found["wake"]["task_id"] == "wake-2"


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (("--kind", "run"), {"run"}),
        (("--class", "rate_limited"), {"delivery"}),
        (("--class", "overload"), {"run"}),
        (("--group", "andy"), {"wake", "delivery", "run"}),
        (("--since", "1h"), {"wake", "delivery", "run"}),
        (("--until", "1h"), set()),
        (("--limit", "1"), {"wake"}),
    ],
)
def test_the_list_is_narrowed(
    family: Cli, asleep: str, delivery: str, run: str, options: tuple[str, ...], kinds: set[str]
) -> None:
    """By kind, class, group, time and number."""
    assert {row["kind"] for row in rows(family, *options)} == kinds


def test_its_attempts_are_shown_by_any_name(family: Cli, delivery: str, event: str, run: str) -> None:
    """The id, its beginning, or the Celery task of an attempt, as Flower shows it."""
    for name in (delivery, delivery[:-2], TASK, TASK[:10]):
        shown = family("retry", "show", name, "--json").json
        assert (shown["kind"], shown["id"]) == ("delivery", delivery)
        assert [(one["number"], one["outcome"], one["task_id"]) for one in shown["attempts"]] == [
            (1, "rate_limited", TASK)
        ]
    assert family("deliveries", "show", TASK, "--json").json["id"] == delivery
    (tried,) = family("retry", "show", TASK[::-1], "--json").json["attempts"]
    assert (tried["number"], tried["error"], tried["worker"]) == (1, "ValueError: no", "here/1/2/3")
    (tried,) = family("retry", "show", run, "--json").json["attempts"]
    assert (tried["outcome"], tried["error"]) == ("overload", "busy")
    assert "`nanotasks retry list`" in family("retry", "show", "nothing").err


def test_a_delivery_is_tried_now_and_given_up(
    family: Cli, delivery: str, central_here: Database, audits: list[tuple[str, str]]
) -> None:
    """Now means now; given up means dead, and a second time off the list of the dead. Each leaves an audit row."""
    assert "1 would be tried now" in family("retry", "now", delivery, "--dry-run").err
    assert audited(central_here) == []
    assert "1 is tried now" in family("retry", "now", delivery).err
    (row,) = rows(family)
    with central_here.read() as session:
        assert session.get_one(Delivery, delivery).next_attempt_at <= now_ms()
    assert row["state"] == "retrying"
    assert family("retry", "cancel", TASK).code == 0
    assert rows(family) == []
    assert [row["id"] for row in family("dead", "list", "--json").json] == [delivery]
    assert family("retry", "cancel", delivery).code == 0
    assert family("dead", "list", "--json").json == []
    assert family("retry", "now", delivery).code == 0
    assert [row["id"] for row in rows(family)] == [delivery]
    assert audited(central_here) == [
        ("retry.now", delivery),
        ("retry.cancel", delivery),
        ("dead.discard", delivery),
        ("retry.now", delivery),
    ]


@pytest.mark.parametrize("state", ["sending", "delivered"])
@pytest.mark.parametrize("verb", ["now", "cancel"])
def test_it_is_too_late(family: Cli, delivery: str, central_here: Database, state: str, verb: str) -> None:
    """What is being sent, or has arrived, is left alone, and the refusal says so."""
    with central_here.write() as session:
        session.execute(update(Delivery).values(state=state))
    refused = family("retry", verb, delivery)
    assert refused.code == 4 and f"is {state}" in refused.err
    with central_here.read() as session:
        assert state_of(session, delivery) == state


def test_a_message_is_routed_now_or_given_up(family: Cli, event: str, session_id: str, central_here: Database) -> None:
    """Given up it is dead with that reason, and its chat is told."""
    assert family("retry", "now", event).code == 0
    with central_here.read() as session:
        assert session.get_one(InboundEvent, event).next_try_at <= now_ms()
    assert family("retry", "cancel", "--kind", "intake").code == 0
    (row,) = family("dead", "list", "--json").json
    assert (row["id"], row["reason"]) == (event, "an operator gave it up")
    (told,) = family("deliveries", "list", "--json").json
    assert told["session"] == session_id
    assert family("retry", "cancel", event).code == 3
    with central_here.read() as session:
        assert session.scalars(select(StateChange.name).order_by(StateChange.id.desc())).first() == "message.dead"


def test_an_agent_is_started_now_or_what_waits_for_it_ends(family: Cli, asleep: str, central_here: Database) -> None:
    """The failures stay counted until an agent lives, or nothing is due."""
    attempts = family("retry", "show", asleep, "--json").json["attempts"]
    assert [(one["number"], one["error"], one["task_id"]) for one in attempts] == [
        (1, "no 1", "wake-1"),
        (2, "no 2", "wake-2"),
    ]
    assert family("retry", "now", "wake-2").code == 0
    with central_here.read() as session:
        found = session.get_one(AgentSession, asleep)
        assert found.wake_retry_at is not None and found.wake_retry_at <= now_ms() and found.wake_failures == 2
    assert family("retry", "cancel", asleep).code == 0
    with central_here.read() as session:
        route = session.scalars(select(InboundRoute)).one()
        assert (route.state, route.error) == ("dead", "an operator gave it up")
        assert "set aside" in session.scalars(select(Delivery.content)).one()


def test_what_cannot_be_appended_is_given_up(family: Cli, asleep: str, central_here: Database) -> None:
    """One session may wait for two things; --kind says which is meant."""
    with central_here.write() as session:
        session.execute(update(AgentSession).values(append_error="disk full"))
        session.execute(update(InboundRoute).values(state="pending"))
    refused = family("retry", "cancel", asleep)
    assert refused.code == 2 and "--kind" in refused.err
    assert family("retry", "now", asleep, "--kind", "append").code == 0
    assert family("retry", "cancel", asleep, "--kind", "append").code == 0
    assert [row["kind"] for row in rows(family)] == ["wake"]
    with central_here.read() as session:
        assert session.scalars(select(InboundRoute.state)).one() == "dead"


def test_a_run_is_done_now_or_given_up(family: Cli, run: str, central_here: Database) -> None:
    """Given up after a failed attempt it has failed."""
    assert family("retry", "now", run).code == 0
    with central_here.read() as session:
        assert session.get_one(TaskRun, run).due_at <= now_ms()
    assert family("retry", "cancel", run).code == 0
    (row,) = family("run", "list", "--state", "failed", "--json").json
    assert row["id"] == run and "operator" in row["note"]
    with central_here.write() as session:
        session.execute(update(TaskRun).where(TaskRun.id == run).values(state="claimed", outcome=None))
    assert "too late" in family("retry", "cancel", run).err


def test_many_at_once(family: Cli, delivery: str, run: str) -> None:
    """All, or what the options name; one of them must be said."""
    assert family("retry", "now").code == 2
    assert family("retry", "now", delivery, "--all").code == 2
    assert family("retry", "cancel", "--all", "--dry-run", "--json").json["count"] == 2
    assert family("retry", "cancel", "--class", "rate_limited", "--json").json["rows"][0]["id"] == delivery
    assert [row["kind"] for row in rows(family)] == ["run"]
