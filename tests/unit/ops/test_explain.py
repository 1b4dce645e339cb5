"""The story of a message is told from rows: what was, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from nanotasks.central import Database
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import Drop, InboundEvent
from nanotasks.central.meta import record
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import DestinationError, PermanentError
from nanotasks.clock import now_ms
from nanotasks.deliver.service import deliver_session
from nanotasks.errors import NotFoundError, UsageError
from nanotasks.ops.explain import explain
from nanotasks.testing import ScriptedSender, channel_of
from tests.scene import Bells, Speaker, Stage


@pytest.fixture
def stage(central: Database, tmp_path: Path) -> Stage:
    return Stage.set_up(central, tmp_path)


@pytest.fixture
def speaker(stage: Stage) -> Speaker:
    """A session of an agent in the chat family, which has been asked `m1`."""
    made = stage.session("one", stage.agent(), stage.chat("family"))
    made.hear("m1:ag-andy")
    return made


def told(stage: Stage, text: str) -> dict[str, Any]:
    with stage.db.read() as session:
        return explain(session, text)


def whats(story: dict[str, Any]) -> list[str]:
    return [entry["what"] for entry in story["timeline"]]


def answer(stage: Stage, speaker: Speaker, *errors: Exception) -> None:
    speaker.say("hi", in_reply_to="m1:ag-andy")
    speaker.ack("completed", "m1:ag-andy")
    sender = ScriptedSender()
    sender.fail("hi", *errors)
    with channel_of(sender):
        deliver_session(stage.db, stage.settings, speaker.id, bells=Bells(), task_id="task-1")


def test_an_answered_message(stage: Stage, speaker: Speaker) -> None:
    """Accepted, routed, written, sent with one attempt, delivered, recorded, answered: in the order of time."""
    answer(stage, speaker)
    story = told(stage, f"ev-{speaker.id}-m1:ag-andy")
    assert whats(story)[:3] == ["accepted", "routed", "written"]
    assert {"attempt", "outcome", "delivered", "recorded", "answered"} <= set(whats(story))
    times = [entry["at"] for entry in story["timeline"]]
    assert times == sorted(times)
    (attempt,) = [entry for entry in story["timeline"] if entry["what"] == "attempt"]
    assert attempt["task"] == "task-1"
    assert [step["at"] for step in story["next"]] == [None]
    assert story["next"][0]["what"].startswith("nothing: ")


@pytest.mark.parametrize("name", ["m1", "m1:ag-andy", "ev-sess-one-m1", "DELIVERY", "DELIVERY-PREFIX", "OUTBOUND"])
def test_every_id_of_a_message_leads_to_its_story(stage: Stage, speaker: Speaker, name: str) -> None:
    """The platform's id, those of event, inbound row, delivery and outbound message; some may be cut short."""
    answer(stage, speaker)
    (delivery,) = stage.deliveries()
    ids = {"DELIVERY": delivery.id, "DELIVERY-PREFIX": delivery.id[:-2], "OUTBOUND": delivery.message_out_id}
    assert told(stage, ids.get(name, name))["message"]["event"] == f"ev-{speaker.id}-m1:ag-andy"


def test_a_delivery_that_is_tried_again(stage: Stage, speaker: Speaker) -> None:
    """What failed and why, and when the next attempt is."""
    answer(stage, speaker, DestinationError("The chat is closed."))
    (delivery,) = stage.deliveries()
    story = told(stage, "m1")
    (outcome,) = [entry for entry in story["timeline"] if entry["what"] == "outcome"]
    assert "destination" in outcome["text"]
    assert "The chat is closed." in outcome["text"]
    assert {"what": f"attempt 2 of the delivery {delivery.id}", "at": delivery.next_attempt_at} in story["next"]


def test_a_reply_that_was_given_up(stage: Stage, speaker: Speaker) -> None:
    """The end, and the command that tries it again."""
    answer(stage, speaker, PermanentError("Never."))
    story = told(stage, "m1")
    assert {"dead"} <= set(whats(story))
    assert "intake retry" in story["next"][0]["what"]


def test_a_message_that_waits_for_its_agent(stage: Stage, speaker: Speaker) -> None:
    """Why the agent does not start, and when it is tried again."""
    again = now_ms() + 5000
    with stage.db.write() as session:
        session.execute(update(AgentSession).values(wake_error="No image.", wake_retry_at=again, wake_failures=2))
    (step,) = told(stage, "m1")["next"]
    assert "No image." in step["what"]
    assert step["at"] == again


def test_a_message_nobody_has_routed(stage: Stage, speaker: Speaker) -> None:
    """It waits for a worker."""
    with stage.db.write() as session:
        session.execute(update(InboundEvent).values(state="pending"))
    assert told(stage, "m1")["next"][0]["what"] == "a worker routes it"


def test_a_dropped_message_and_what_an_operator_did(stage: Stage, central: Database) -> None:
    """The reason of a drop, and the audit rows of everything in the story."""
    with central.write() as session:
        session.add(
            InboundEvent(
                id="ev-1", channel_type="x", platform_id="y", platform_message_id="p", digest="d", accept_order=1,
                kind="chat", timestamp="", content='{"text": "hi"}', received_at=5, state="dropped",
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Drop(id="d", event_id="ev-1", channel_type="x", platform_id="y", reason="no_agent_wired", created_at=6)
        )
        record(session, "ann", "intake.retry", "ev-1", {})
    story = told(stage, "p")
    assert whats(story) == ["accepted", "dropped", "operator"]
    assert "no_agent_wired" in story["next"][0]["what"]


def test_a_delivery_of_its_own(stage: Stage) -> None:
    """What an agent said without being asked is told alone."""
    speaker = stage.session("two", stage.agent(), stage.chat("family"))
    answer(stage, speaker)
    with stage.db.write() as session:
        session.execute(update(Delivery).values(in_reply_to=None))
    (delivery,) = stage.deliveries()
    story = told(stage, delivery.id)
    assert story["message"]["event"] is None
    assert "delivered" in whats(story)


def test_an_unknown_id_and_one_of_several_messages(stage: Stage, speaker: Speaker) -> None:
    """Who asks learns which ids are taken, or between which to choose."""
    with pytest.raises(NotFoundError, match="There is no message 'nobody'"):
        told(stage, "nobody")
    stage.session("two", "ag-andy").hear("m1:ag-other")
    with pytest.raises(UsageError, match="several messages"):
        told(stage, "m1")
