"""What was given up is listed in one place, tried again in its order, or put aside."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from nanotasks.central import Database
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.meta import record
from nanotasks.channels.contract import PermanentError
from nanotasks.clock import now_ms
from nanotasks.deliver.service import attempt, deliver_session
from nanotasks.errors import NotFoundError
from nanotasks.ops import dead
from nanotasks.ops.dead import Wanted
from nanotasks.testing import ScriptedSender, channel_of
from tests.scene import Bells, Speaker, Stage


@pytest.fixture
def stage(central: Database, tmp_path: Path) -> Stage:
    return Stage.set_up(central, tmp_path)


@pytest.fixture
def speaker(stage: Stage) -> Speaker:
    return stage.session("one", stage.agent(), stage.chat("family"))


def give_up(stage: Stage, speaker: Speaker, *texts: str) -> list[str]:
    """Deliveries of these texts that are dead; their ids in the order of the lane."""
    speaker.say(*texts)
    sender = ScriptedSender()
    for text in texts:
        sender.fail(text, PermanentError("Never."))
    with channel_of(sender):
        deliver_session(stage.db, stage.settings, speaker.id, bells=Bells())
    return [one.id for one in stage.deliveries()]


def listed(stage: Stage, wanted: Wanted = Wanted()) -> list[tuple[str, str]]:
    with stage.db.read() as session:
        return [(one.kind, one.id) for one in dead.find(session, wanted)]


def test_events_messages_and_deliveries_are_in_one_list(stage: Stage, speaker: Speaker) -> None:
    """Each with its kind; the filters narrow it."""
    (delivery,) = give_up(stage, speaker, "a")
    speaker.hear("m1:ag-andy")
    with stage.db.write() as session:
        session.execute(update(InboundRoute).values(state="dead", finished_at=now_ms() + 10, error="no answer"))
        session.add(
            InboundEvent(
                id="ev-x", channel_type="x", platform_id="y", platform_message_id="p", digest="d", accept_order=1,
                kind="chat", timestamp="", content="{}", received_at=5, state="dead", error="bad",
            )
        )  # fmt: skip
    message = f"ev-{speaker.id}-m1:ag-andy"
    assert listed(stage) == [("message", message), ("delivery", delivery), ("event", "ev-x")]
    assert listed(stage, Wanted(kinds=("event",))) == [("event", "ev-x")]
    assert listed(stage, Wanted(error_class="permanent")) == [("delivery", delivery)]
    assert listed(stage, Wanted(error_class="transient")) == []
    assert listed(stage, Wanted(until_ms=6)) == [("event", "ev-x")]
    assert listed(stage, Wanted(since_ms=6, group_id="ag-andy", session_id=speaker.id)) == [
        ("message", message),
        ("delivery", delivery),
    ]


def test_what_is_retried_keeps_the_order_of_its_lane(stage: Stage, speaker: Speaker) -> None:
    """Three dead rows, retried in the wrong order and signalled in a worse one, and a newer row that waits."""
    ids = give_up(stage, speaker, "a", "b", "c")
    speaker.say("d")
    with stage.db.write() as session:
        for name in (ids[2], ids[0], ids[1]):
            dead.retry(session, dead.one(session, name))
    sender = ScriptedSender()
    with channel_of(sender):
        deliver_session(stage.db, stage.settings, speaker.id, bells=Bells())
        assert not attempt(stage.db, stage.settings, ids[2], 2, bells=Bells()).made
        signals = [("attempt", ids[0], "here", 2)]
        while signals:
            kind, *rest = signals.pop(0)
            if kind == "attempt":
                made = attempt(stage.db, stage.settings, rest[0], rest[2], bells=Bells())
                signals += made.signals
    assert sender.texts == ["a", "b", "c", "d"]


def test_a_discarded_entry_leaves_the_list_and_stays_recorded(stage: Stage, speaker: Speaker) -> None:
    """Until it ends a second time."""
    (delivery,) = give_up(stage, speaker, "a")
    with stage.db.write() as session:
        assert dead.discard(session, dead.one(session, delivery)) == []
        record(session, "ann", dead.DISCARD, delivery, {})
    assert listed(stage) == []
    with stage.db.write() as session:
        assert session.scalars(select(Delivery.state)).one() == "dead"
        session.execute(update(Delivery).values(finished_at=now_ms() + 60_000))
    assert listed(stage) == [("delivery", delivery)]


def test_a_held_delivery_that_is_discarded_is_dead(stage: Stage, speaker: Speaker) -> None:
    """Its agent is told, as of every other."""
    (delivery,) = give_up(stage, speaker, "a")
    with stage.db.write() as session:
        session.execute(update(Delivery).values(state="held", finished_at=None, projected_at=None))
        entry = dead.one(session, delivery[:-2])
        assert entry.state == "held"
        assert dead.discard(session, entry) == [("deliver", speaker.id, "here")]
        assert session.get_one(Delivery, delivery).state == "dead"


def test_a_message_without_an_answer_is_given_to_its_agent_again(stage: Stage, speaker: Speaker) -> None:
    """And an unknown id is refused."""
    speaker.hear("m1:ag-andy")
    with stage.db.write() as session:
        session.execute(update(InboundRoute).values(state="dead", finished_at=now_ms()))
        entry = dead.one(session, f"ev-{speaker.id}-m1:ag-andy")
        assert dead.retry(session, entry) == [("append", speaker.id, "here")]
    assert speaker.route_state("m1:ag-andy~2") == "pending"
    with stage.db.read() as session, pytest.raises(NotFoundError):
        dead.one(session, "nobody")
