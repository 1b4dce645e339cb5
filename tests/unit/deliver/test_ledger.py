"""The verbs on the ledger, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from nanotasks.central.deliveries import Delivery
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.deliver.host_messages import enter_host_message
from nanotasks.deliver.ledger import Claim, Ledger
from nanotasks.domain.delivery import Failure, History, Verdict, lane_of
from nanotasks.owners import Owner, this_owner
from tests.scene import HOST, Stage

LANE = lane_of("sess-andy", "scripted", "family")
DEAD_OWNER = Owner(HOST, "another boot", 1, 1)
FAILURE = Failure("transient", "no luck")


@pytest.fixture
def stage(any_stage: Stage) -> Stage:
    any_stage.session("andy", any_stage.agent("andy"), any_stage.chat("family"))
    return any_stage


def ledger(stage: Stage, owner: Owner | None = None, overdue_ms: int = 60_000) -> Ledger:
    return Ledger(stage.db, owner or this_owner(HOST), overdue_ms=overdue_ms, task_id="task-1")


def enter(stage: Stage, *seqs: int, **values: object) -> None:
    """Pending rows `d<seq>` of one lane."""
    with stage.db.write() as session:
        for seq in seqs:
            row = {
                "id": f"d{seq}",
                "session_id": "sess-andy",
                "agent_group_id": "ag-andy",
                "host_id": HOST,
                "message_out_id": f"m{seq}",
                "seq": seq,
                "lane": LANE,
                "kind": "chat",
                "content": "{}",
                "next_attempt_at": 1,
                "created_at": 1,
            }
            session.add(Delivery(**(row | values)))


def claimed(claim: Claim | None) -> Claim:
    assert claim is not None
    return claim


def retrying(_past: History) -> Verdict:
    return Verdict("retrying", now_ms() - 1)


def state_of(stage: Stage, delivery_id: str) -> str:
    return next(row.state for row in stage.deliveries() if row.id == delivery_id)


def test_a_claim_is_recorded_before_the_send(stage: Stage) -> None:
    """The row is `sending`, with its owner and the time it counts as overdue, and its attempt is written."""
    enter(stage, 1)
    claim = claimed(ledger(stage).claim_head(LANE))
    [row] = stage.deliveries()
    [made] = stage.attempts("d1")
    assert (claim.id, claim.attempt, row.state, row.attempts) == ("d1", 1, "sending", 1)
    assert row.sending_owner == str(this_owner(HOST))
    assert row.next_attempt_at is not None and row.next_attempt_at > now_ms() + 50_000
    assert (made.number, made.outcome, made.task_id) == (1, None, "task-1")


def test_one_row_of_a_lane_is_sent_at_a_time(stage: Stage) -> None:
    """While one is `sending` nobody claims another, in seq order or out of it."""
    enter(stage, 1, 2)
    enter(stage, 3, state="parked", attempts=1)
    first = ledger(stage)
    claim = claimed(first.claim_head(LANE))
    assert ledger(stage).claim_head(LANE) is None
    assert ledger(stage).claim_attempt("d3", 2) is None
    following = claimed(first.finish_delivered(claim, "p1", go_on=True))
    assert following.id == "d2"


def test_a_success_and_the_next_intent_are_one_commit(stage: Stage) -> None:
    """The outcome of one row and the claim of the next stand in the database together."""
    enter(stage, 1, 2)
    claim = claimed(ledger(stage).claim_head(LANE))
    ledger(stage).finish_delivered(claim, "platform-1", go_on=True)
    first, second = stage.deliveries()
    assert (first.state, first.platform_message_id, first.sending_owner) == ("delivered", "platform-1", None)
    assert first.finished_at is not None
    assert second.state == "sending"
    assert [one.outcome for one in stage.attempts("d1")] == ["delivered"]


def test_a_row_to_be_tried_again_holds_its_lane(stage: Stage) -> None:
    """What stands behind it waits, whether its time has come or not."""
    enter(stage, 1, 2)
    one = ledger(stage)
    verdict, following = one.finish_failed(claimed(one.claim_head(LANE)), FAILURE, retrying, True)
    assert (verdict.state, following) == ("retrying", None)
    assert one.claim_head(LANE) is None
    assert not one.has_head(LANE)
    again = claimed(one.claim_attempt("d1", 2))
    assert again.attempt == 2
    assert claimed(one.finish_delivered(again, None, go_on=True)).id == "d2"


def test_a_message_of_the_host_waits_behind_a_row_to_be_tried_again(stage: Stage) -> None:
    """It has the seq of the last row that stands before it, and holds as much behind as that one."""
    one = ledger(stage)
    enter(stage, 1, id="dlv-1")
    one.finish_failed(claimed(one.claim_head(LANE)), FAILURE, retrying, True)
    with stage.db.write() as session:
        enter_host_message(session, "sess-andy", "notice", Address("scripted", "family"), "from the host")
    assert [row.seq for row in stage.deliveries()] == [1, 1]
    assert not one.has_head(LANE)
    assert one.claim_head(LANE) is None
    following = claimed(one.finish_delivered(claimed(one.claim_attempt("dlv-1", 2)), None, go_on=True))
    assert following.message_out_id == "host-notice"


def test_a_message_of_a_host_whose_clock_is_behind_waits_too(stage: Stage) -> None:
    """Its id is the smaller one then."""
    one = ledger(stage)
    enter(stage, 1, id="dlv-2", state="retrying", attempts=1)
    enter(stage, 1, id="dlv-1", message_out_id="host-notice")
    assert one.claim_head(LANE) is None


@pytest.mark.parametrize("state", ["parked", "held", "dead"])
def test_a_row_that_is_out_of_the_way_lets_its_lane_go_on(stage: Stage, state: str) -> None:
    """Parked, held and dead rows hold nothing, and the same commit claims the next."""
    enter(stage, 1, 2)
    one = ledger(stage)
    claim = claimed(one.claim_head(LANE))
    at = now_ms() + 1000 if state == "parked" else None
    _, following = one.finish_failed(claim, FAILURE, lambda _past: Verdict(state, at), True)
    assert claimed(following).id == "d2"
    assert (stage.deliveries()[0].finished_at is None) == (state != "dead")


def test_a_row_for_later_holds_nothing_until_then(stage: Stage) -> None:
    """A message with a time of its own is passed over while that lies ahead."""
    enter(stage, 1, next_attempt_at=now_ms() + 60_000)
    enter(stage, 2)
    assert claimed(ledger(stage).claim_head(LANE)).id == "d2"


@pytest.mark.parametrize(
    ("values", "number"),
    [
        ({"state": "retrying", "attempts": 1, "next_attempt_at": 2**50}, 2),
        ({"state": "retrying", "attempts": 2}, 2),
        ({"state": "retrying", "attempts": 1}, 3),
        ({"state": "dead", "attempts": 1}, 2),
        ({"state": "delivered", "attempts": 1}, 2),
        ({"state": "held", "attempts": 1}, 2),
    ],
)
def test_an_attempt_that_is_not_due_is_not_made(stage: Stage, values: dict[str, object], number: int) -> None:
    """Too early, made already, from another time, ended: a signal may be late or doubled."""
    enter(stage, 1, **values)
    assert ledger(stage).claim_attempt("d1", number) is None


def test_a_finish_after_the_row_was_taken_over_changes_nothing(stage: Stage) -> None:
    """Whoever wakes up late has neither the attempt nor the owner any more."""
    enter(stage, 1)
    late = ledger(stage, DEAD_OWNER)
    claim = claimed(late.claim_head(LANE))
    current = ledger(stage)
    [(_, verdict)] = current.recover("sess-andy", lambda _claim, _failure, past: retrying(past))
    assert verdict.state == "retrying"
    again = claimed(current.claim_attempt("d1", 2))
    assert late.finish_delivered(claim, "late", go_on=False) is None
    assert state_of(stage, "d1") == "sending"
    current.finish_delivered(again, "in time", go_on=False)
    assert stage.deliveries()[0].platform_message_id == "in time"
    assert [one.outcome for one in stage.attempts("d1")] == ["unknown_outcome", "delivered"]


def test_a_send_of_a_dead_process_has_an_unknown_outcome(stage: Stage) -> None:
    """Recovery closes the attempt and asks what is to become of the row, with all that was uncertain before."""
    enter(stage, 1)
    claim = claimed(ledger(stage, DEAD_OWNER).claim_head(LANE))
    asked: list[tuple[Claim, str, int]] = []

    def decide(lost: Claim, failure: Failure, past: History) -> Verdict:
        asked.append((lost, failure.error_class, past.unknown_before))
        return Verdict("held")

    assert ledger(stage).recover("sess-andy", decide) == [(claim, Verdict("held"))]
    assert asked == [(claim, "unknown_outcome", 0)]
    assert [one.outcome for one in stage.attempts("d1")] == ["unknown_outcome"]


def test_a_send_of_a_living_process_is_left_alone_until_it_is_overdue(stage: Stage) -> None:
    """Of another host nothing is known, so its sends are waited for as well."""
    enter(stage, 1)
    ledger(stage, replace(this_owner(HOST), host="elsewhere"), overdue_ms=200).claim_head(LANE)
    assert ledger(stage).recover("sess-andy", lambda *_: Verdict("held")) == []
    with stage.db.write() as session:
        session.execute(update(Delivery).values(next_attempt_at=now_ms()))
    assert len(ledger(stage).recover("sess-andy", lambda *_: Verdict("held"))) == 1


def test_two_recoveries_decide_once(stage: Stage) -> None:
    """The second finds nothing that is still lost."""
    enter(stage, 1)
    ledger(stage, DEAD_OWNER).claim_head(LANE)
    assert len(ledger(stage).recover("sess-andy", lambda *_: Verdict("dead"))) == 1
    assert ledger(stage).recover("sess-andy", lambda *_: Verdict("dead")) == []
