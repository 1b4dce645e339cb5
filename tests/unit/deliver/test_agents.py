"""Messages from one agent to another."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select, update

from nanotasks.central.deliveries import Delivery
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms, parse_ms
from nanotasks.deliver.service import deliver_session
from tests.scene import Bells, Speaker, Stage


@pytest.fixture
def betty(stage: Stage, andy: Speaker) -> Speaker:
    """Betty's session; Andy may write to her."""
    speaker = stage.session("betty", stage.agent("betty"))
    stage.allow(andy.agent_id, "betty", "agent", speaker.agent_id)
    return speaker


def deliver(speaker: Speaker, bells: Bells | None = None) -> Bells:
    bells = bells or Bells()
    deliver_session(speaker.stage.db, speaker.stage.settings, speaker.id, bells=bells)
    return bells


def heard(speaker: Speaker) -> list[tuple[str, str | None, str | None]]:
    """The texts in an inbox, with the agent and session they came from."""
    rows = speaker.inbound("SELECT content, platform_id, source_session_id FROM messages_in ORDER BY seq")
    return [(json.loads(content)["text"], agent_id, session_id) for content, agent_id, session_id in rows]


def test_a_message_reaches_the_other_agent(andy: Speaker, betty: Speaker) -> None:
    """As a chat row that names the agent and the session it came from; its session is woken."""
    andy.say("hello", channel="agent", to=betty.agent_id)
    bells = deliver(andy)
    assert heard(betty) == [("hello", andy.agent_id, andy.id)]
    [(row_id, channel, thread, trigger)] = betty.inbound("SELECT id, channel_type, thread_id, trigger FROM messages_in")
    assert (row_id[:4], channel, thread, trigger) == ("a2a-", "agent", None, 1)
    assert bells.rung == [("wake", betty.id, "here")]
    assert [row.state for row in andy.stage.deliveries()] == ["delivered"]


def test_a_repetition_is_one_row(andy: Speaker, betty: Speaker) -> None:
    """A crash after the row was written and before that was recorded repeats the hand-over."""
    andy.say("hello", channel="agent", to=betty.agent_id)
    deliver(andy)
    with andy.stage.db.write() as session:
        session.execute(update(Delivery).values(state="pending", next_attempt_at=1))
    deliver(andy)
    assert len(heard(betty)) == 1


def test_a_repetition_goes_where_the_first_attempt_went(stage: Stage, andy: Speaker, betty: Speaker) -> None:
    """A session that the other agent got in between is newer, and still the row does not come twice."""
    andy.say("hello", channel="agent", to=betty.agent_id)
    deliver(andy)
    newer = stage.session("betty-2", betty.agent_id)
    with stage.db.write() as session:
        first_attempt = session.scalars(select(Delivery.first_attempt_at)).one()
        session.get_one(AgentSession, newer.id).created_at = (first_attempt or 0) + 1
        session.execute(update(Delivery).values(state="pending", next_attempt_at=1))
    deliver(andy)
    assert [text for text, _, _ in heard(betty)] == ["hello"]
    assert heard(newer) == []


def test_a_message_in_between_does_not_lead_a_repetition_elsewhere(stage: Stage, andy: Speaker, betty: Speaker) -> None:
    """What another session of the other agent says after the first attempt comes too late to choose by."""
    stage.allow(betty.agent_id, "andy", "agent", andy.agent_id)
    older = stage.session("betty-0", betty.agent_id)
    with stage.db.write() as session:
        session.get_one(AgentSession, older.id).created_at = 1
    andy.say("hello", channel="agent", to=betty.agent_id)
    deliver(andy)
    older.say("by the way", channel="agent", to=andy.agent_id)
    deliver(older)
    [(said_at,)] = andy.inbound("SELECT timestamp FROM messages_in")
    with stage.db.write() as session:
        first = update(Delivery).where(Delivery.session_id == andy.id)
        before = (parse_ms(said_at) or 0) - 1
        session.execute(first.values(state="pending", next_attempt_at=1, first_attempt_at=before))
    deliver(andy)
    assert ([text for text, _, _ in heard(betty)], heard(older)) == (["hello"], [])


def test_a_session_of_a_clock_ahead_is_the_agents_own(stage: Stage, andy: Speaker, betty: Speaker) -> None:
    """Another host made it a moment from now; no second one is made beside it."""
    with stage.db.write() as session:
        session.get_one(AgentSession, betty.id).created_at = now_ms() + 60_000
    andy.say("hello", channel="agent", to=betty.agent_id)
    deliver(andy)
    assert [text for text, _, _ in heard(betty)] == ["hello"]


def test_an_answer_returns_to_the_session_that_asked(stage: Stage, andy: Speaker, betty: Speaker) -> None:
    """By the message it answers, else by the newest message from that agent, else to its newest session."""
    stage.allow(betty.agent_id, "andy", "agent", andy.agent_id)
    newer = stage.session("andy-2", andy.agent_id)
    andy.say("question", channel="agent", to=betty.agent_id)
    deliver(andy)
    [(question,)] = betty.inbound("SELECT id FROM messages_in")
    betty.say("answer", channel="agent", to=andy.agent_id, in_reply_to=question)
    betty.say("one more", channel="agent", to=andy.agent_id)
    deliver(betty)
    assert [text for text, _, _ in heard(andy)] == ["answer", "one more"]
    carl = stage.session("carl", stage.agent("carl"))
    stage.allow(carl.agent_id, "andy", "agent", andy.agent_id)
    carl.say("news", channel="agent", to=andy.agent_id)
    deliver(carl)
    assert [text for text, _, _ in heard(newer)] == ["news"]


def test_an_agent_without_a_session_gets_one(stage: Stage, andy: Speaker) -> None:
    """A session of its own, without a chat, and one only."""
    target = stage.agent("dora", host_id=None)
    stage.allow(andy.agent_id, "dora", "agent", target)
    andy.say("hello", "again", channel="agent", to=target)
    bells = deliver(andy)
    [(kind, session_id, host)] = set(bells.rung)
    assert (kind, host) == ("wake", "here")
    from nanotasks.session import SessionFolder

    dora = Speaker(stage, session_id, target, SessionFolder.of(stage.settings.data_dir, target, session_id))
    assert [text for text, _, _ in heard(dora)] == ["hello", "again"]


def test_files_go_along(andy: Speaker, betty: Speaker) -> None:
    """They become attachments in the other's inbox; what is no plain file stays behind."""
    content = json.dumps({"text": "look", "files": ["a.txt", "link"]})
    andy.say("look", id="m1", channel="agent", to=betty.agent_id, content=content)
    outbox = andy.folder.workspace / "outbox" / "m1"
    outbox.mkdir()
    (outbox / "a.txt").write_text("hello")
    (outbox / "link").symlink_to("/etc/passwd")
    deliver(andy)
    [(row_id, stored)] = betty.inbound("SELECT id, content FROM messages_in")
    [attachment] = json.loads(stored)["attachments"]
    assert attachment == {
        "name": "a.txt",
        "filename": "a.txt",
        "type": "file",
        "localPath": f"inbox/{row_id}/a.txt",
    }
    assert (betty.folder.inbox / row_id / "a.txt").read_text() == "hello"


def test_an_agent_may_write_to_itself(andy: Speaker) -> None:
    """Its own group needs no destination."""
    andy.say("note to self", channel="agent", to=andy.agent_id)
    deliver(andy)
    assert heard(andy) == [("note to self", andy.agent_id, andy.id)]


def test_a_stranger_is_refused(stage: Stage, andy: Speaker) -> None:
    """No destination, no such agent, another host: dead, with the reason."""
    stage.agent("eve")
    from nanotasks.central.hosts import Host

    with stage.db.write() as session:
        session.add(Host(id="there", heartbeat_at=now_ms(), created_at=now_ms()))
    stage.allow(andy.agent_id, "far", "agent", stage.agent("far", host_id="there"))
    andy.say("1", channel="agent", to="ag-eve")
    andy.say("2", channel="agent", to="ag-nobody")
    andy.say("3", channel="agent", to="ag-far")
    deliver(andy)
    rows = stage.deliveries()
    assert [row.state for row in rows] == ["dead"] * 3
    reasons = [row.error_text or "" for row in rows]
    assert "unauthorized" in reasons[0]
    assert "no agent" in reasons[1]
    assert "another host" in reasons[2]


def test_two_agents_cannot_talk_without_end(andy: Speaker, betty: Speaker) -> None:
    """Beyond a rate their messages wait, in order, and none is lost."""
    andy.say("hello", channel="agent", to=betty.agent_id)
    deliver(andy, Bells(pauses=[2.0]))
    [row] = andy.stage.deliveries()
    assert (row.state, row.error_class) == ("retrying", "rate_limited")
    assert heard(betty) == []
