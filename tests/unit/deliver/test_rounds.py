"""One round over a session: what the agent wrote is sent, in order, and told back."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundRoute
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import (
    Capabilities,
    DestinationError,
    OutboundMessage,
    PermanentError,
    RateLimitedError,
    TransientError,
)
from nanotasks.clock import iso, now_ms
from nanotasks.deliver import operator, outbox
from nanotasks.deliver.notices import SINGLY
from nanotasks.deliver.pool import finish_background
from nanotasks.deliver.service import Attempted, Drained, attempt, deliver_session
from nanotasks.deliver.settle import UNANSWERED
from nanotasks.intake.append import Appended, append_session
from nanotasks.session import files
from nanotasks.session.outbound import MAX_BATCH_CHARACTERS
from nanotasks.settings import Settings
from nanotasks.testing import ScriptedSender, channel_of, wait_for
from tests.scene import HOST, Bells, Speaker, Stage


def deliver(speaker: Speaker, bells: Bells | None = None, settings: Settings | None = None) -> Drained:
    stage = speaker.stage
    return deliver_session(stage.db, settings or stage.settings, speaker.id, bells=bells or Bells())


def try_again(speaker: Speaker, delivery: Delivery) -> Attempted:
    """Make a delivery's next attempt now, whatever its pause."""
    stage = speaker.stage
    with stage.db.write() as session:
        session.execute(update(Delivery).where(Delivery.id == delivery.id).values(next_attempt_at=now_ms()))
    return attempt(stage.db, stage.settings, delivery.id, delivery.attempts + 1, bells=Bells())


def states(speaker: Speaker) -> list[str]:
    return [row.state for row in speaker.stage.deliveries(speaker.id)]


# Entering


def test_messages_arrive_in_seq_order(andy: Speaker, sender: ScriptedSender) -> None:
    """What was written is sent once, and the agent learns what the platform calls it."""
    ids = andy.say("one", "two", "three")
    drained = deliver(andy)
    assert sender.texts == ["one", "two", "three"]
    assert drained.entered == 3
    told = andy.inbound("SELECT message_out_id, platform_message_id, status FROM delivered ORDER BY rowid")
    assert told == [(ids[0], "sent-1", "delivered"), (ids[1], "sent-2", "delivered"), (ids[2], "sent-3", "delivered")]
    assert all(row.projected_at for row in andy.stage.deliveries())


DIES_IN_A_COMMIT = """
import os, signal, sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 2")
for number in range(200):
    connection.execute(
        "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES (?, ?, 't', 'chat', ?)",
        (f"half-{number}", 101 + 2 * number, "x" * 5000),
    )
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_half_a_commit_of_a_dead_agent_keeps_back_no_whole_one(andy: Speaker, sender: ScriptedSender) -> None:
    """Where no agent lives that could roll it back, what was committed before it is delivered all the same."""
    andy.say("one", "two")
    subprocess.run([sys.executable, "-c", DIES_IN_A_COMMIT, andy.folder.outbound_db], check=False)
    assert (andy.folder.workspace / "outbound.db-journal").exists()
    assert deliver(andy).unreadable is None
    assert sender.texts == ["one", "two"]


def test_a_second_round_sends_nothing_again(andy: Speaker, sender: ScriptedSender) -> None:
    """A signal that comes twice costs a look."""
    andy.say("one")
    deliver(andy)
    assert deliver(andy).entered == 0
    assert sender.texts == ["one"]


def test_what_a_message_says_reaches_the_channel(andy: Speaker, sender: ScriptedSender) -> None:
    """Address, thread, kind, content and an idempotency key."""
    andy.say("one", thread_id="t-1", kind="chat-sdk", content='{"type":"card","text":"one"}')
    deliver(andy)
    [message] = sender.arrived
    [row] = andy.stage.deliveries()
    assert (message.delivery_id, message.attempt) == (row.id, 1)
    assert (message.address.channel_type, message.address.platform_id) == ("scripted", "family")
    assert (message.address.thread_id, message.kind) == ("t-1", "chat-sdk")
    assert message.content == {"type": "card", "text": "one"}


def test_what_nanoclaw_delivered_is_not_sent_again(andy: Speaker, sender: ScriptedSender) -> None:
    """A folder that comes from NanoClaw 2 brings its history along."""
    old, _ = andy.say("old", "new")
    with sqlite3.connect(andy.folder.inbound_db) as inbound:
        inbound.execute("INSERT INTO delivered VALUES (?, 'p', 'delivered', '2026-01-01 00:00:00')", (old,))
    inbound.close()
    deliver(andy)
    assert sender.texts == ["new"]


def test_a_replaced_file_is_read_from_its_beginning(andy: Speaker, sender: ScriptedSender) -> None:
    """Fewer rows, other rows, more rows than before: what is new is sent, what is known is not."""
    andy.say("one", "two", "three")
    deliver(andy)
    with sqlite3.connect(andy.folder.outbound_db) as outbound:
        outbound.execute("DELETE FROM messages_out WHERE content LIKE '%two%' OR content LIKE '%three%'")
    outbound.close()
    andy.say("four", "five", "six", "seven")
    deliver(andy)
    assert sender.texts == ["one", "two", "three", "four", "five", "six", "seven"]


def test_a_huge_row_hides_nothing_that_stands_behind_it(andy: Speaker, sender: ScriptedSender) -> None:
    """A look that is full with the last row it knows, which it reads again each time, goes on behind it."""
    settings = replace(andy.stage.settings, outbound_max_row_kb=MAX_BATCH_CHARACTERS // 1000)
    huge = "x" * MAX_BATCH_CHARACTERS
    andy.say(huge)
    deliver(andy, settings=settings)
    andy.say("behind")
    deliver(andy, settings=settings)
    assert sender.texts == [huge, "behind"]


def test_an_emptied_file_is_forgotten(andy: Speaker, sender: ScriptedSender) -> None:
    """The next message is the first one again."""
    andy.say("one")
    deliver(andy)
    with sqlite3.connect(andy.folder.outbound_db) as outbound:
        outbound.execute("DELETE FROM messages_out")
    outbound.close()
    deliver(andy)
    with andy.stage.db.read() as session:
        assert session.get_one(AgentSession, andy.id).outbound_mark == 0
    andy.say("two")
    deliver(andy)
    assert sender.texts == ["one", "two"]


@pytest.mark.parametrize(
    "form",
    [str, lambda text: text[:19].replace("T", " "), lambda text: text[:19] + "+00:00"],
    ids=["iso", "sqlite", "offset"],
)
def test_a_message_waits_for_its_time(andy: Speaker, sender: ScriptedSender, form: Callable[[str], str]) -> None:
    """`deliver_after` in any form that `datetime()` reads (NanoClaw 2 compared the texts)."""
    andy.say("later", deliver_after=form(iso(now_ms() + 3_600_000)))
    andy.say("now")
    deliver(andy)
    assert sender.texts == ["now"]
    later = next(row for row in andy.stage.deliveries() if row.state == "pending")
    assert later.next_attempt_at is not None and abs(later.next_attempt_at - now_ms() - 3_600_000) < 60_000


def test_a_message_whose_time_has_passed_goes_at_once(andy: Speaker, sender: ScriptedSender) -> None:
    """Whatever the form."""
    andy.say("past", deliver_after="2026-01-01T00:00:00.000Z")
    deliver(andy)
    assert sender.texts == ["past"]


@pytest.mark.parametrize("name", ["id", "in_reply_to", "platform_id", "channel_type"])
def test_a_name_that_is_too_long_for_an_index_holds_up_no_other(
    andy: Speaker, sender: ScriptedSender, name: str
) -> None:
    """A row with a name that PostgreSQL could not index is dead, and the one behind it goes out."""
    endless = "".join(chr(0x4E00 + number) for number in range(3000))
    andy.say("bad", **{name: endless})
    andy.say("good")
    deliver(andy)
    assert sender.texts == ["good"]
    assert [row.state for row in andy.stage.deliveries()] == ["dead", "delivered"]


def test_an_unreadable_row_holds_up_no_other(andy: Speaker, sender: ScriptedSender) -> None:
    """It is kept as dead with the reason, the agent is told, and everything else goes on."""
    andy.say("one")
    andy.say("bad", id="bad", content=b"\xff\xfe", kind=b"\x00")
    andy.say("nul", id="nul", content='{"text": "a\0b"}')
    andy.say("two")
    drained = deliver(andy)
    assert sender.texts == ["one", "two"]
    assert states(andy) == ["delivered", "dead", "dead", "delivered"]
    notices = [row[0] for row in andy.inbound("SELECT content FROM messages_in ORDER BY seq")]
    assert len(notices) == 2
    assert "cannot be read" in notices[0]
    assert drained.signals == [("wake", andy.id, "here")]


@pytest.mark.parametrize("content", ["not json", "[1]", '"text"', "null", "[" * 5000])
def test_content_that_is_no_object_is_dead_at_once(andy: Speaker, sender: ScriptedSender, content: str) -> None:
    """Trying it again would not help."""
    andy.say("bad", content=content)
    andy.say("good")
    deliver(andy)
    assert sender.texts == ["good"]
    assert states(andy) == ["dead", "delivered"]


def test_a_file_that_cannot_be_read_is_reported(andy: Speaker, sender: ScriptedSender) -> None:
    """What stands in the ledger already is sent all the same."""
    andy.say("one")
    sender.fail("one", TransientError("not now"))
    deliver(andy)
    andy.folder.outbound_db.unlink()
    andy.folder.outbound_db.symlink_to("/etc/passwd")
    drained = deliver(andy)
    assert drained.unreadable
    assert try_again(andy, andy.stage.deliveries()[0]).state == "delivered"


def test_a_session_of_another_host_is_left_alone(stage: Stage, sender: ScriptedSender) -> None:
    """Only the owner of an agent group opens its files."""
    far = stage.session("far", stage.agent("far", host_id=None), stage.chat("family"))
    far.say("one")
    assert deliver(far) == Drained()
    assert deliver_session(stage.db, stage.settings, "sess-nobody", bells=Bells()) == Drained()
    assert sender.calls == []


# Failing


def test_a_failed_row_is_tried_again_in_its_place(andy: Speaker, sender: ScriptedSender) -> None:
    """The rows behind it wait; a success lets them go on."""
    andy.say("one", "two", "three")
    sender.fail("two", TransientError("busy"), TransientError("busy"))
    deliver(andy)
    assert sender.texts == ["one"]
    assert states(andy) == ["delivered", "retrying", "pending"]
    second = andy.stage.deliveries()[1]
    assert (second.error_class, second.error_text) == ("transient", "busy")
    result = try_again(andy, second)
    assert (result.made, result.state, result.error_text) == (True, "retrying", "busy")
    assert result.next_attempt_ms is not None and result.next_attempt_ms > now_ms()
    assert try_again(andy, andy.stage.deliveries()[1]).state == "delivered"
    assert sender.texts == ["one", "two", "three"]
    assert [one.outcome for one in andy.stage.attempts(second.id)] == ["transient", "transient", "delivered"]


def test_a_failing_lane_holds_no_other(andy: Speaker, sender: ScriptedSender, stage: Stage) -> None:
    """A chat that fails and one that works are two lanes."""
    stage.allow(andy.agent_id, "work", "channel", stage.chat("work"))
    andy.say("one")
    andy.say("two", to="work")
    sender.fail("one", TransientError("busy"))
    deliver(andy)
    assert sender.texts == ["two"]


def test_the_platforms_pause_is_kept(andy: Speaker, sender: ScriptedSender) -> None:
    """Retry-After decides about the next attempt."""
    andy.say("one")
    sender.fail("one", RateLimitedError("slow down", retry_after_s=120))
    deliver(andy)
    [row] = andy.stage.deliveries()
    assert row.next_attempt_at is not None and 115_000 < row.next_attempt_at - now_ms() <= 120_000
    assert row.error_class == "rate_limited"


def test_an_attempt_that_comes_too_early_or_twice_does_nothing(andy: Speaker, sender: ScriptedSender) -> None:
    """The signal of an attempt may be doubled or delayed."""
    andy.say("one")
    sender.fail("one", TransientError("busy"))
    deliver(andy)
    [row] = andy.stage.deliveries()
    stage = andy.stage
    assert not attempt(stage.db, stage.settings, row.id, 2, bells=Bells()).made
    assert try_again(andy, row).made
    late = attempt(stage.db, stage.settings, row.id, 2, bells=Bells())
    assert (late.made, late.state) == (False, "delivered")
    assert attempt(stage.db, stage.settings, "dlv-nobody", 2, bells=Bells()).state == "gone"
    assert sender.texts == ["one"]


def test_a_destination_that_fails_for_long_is_parked(andy: Speaker, sender: ScriptedSender) -> None:
    """The lane goes on without it, and it is tried again out of order."""
    andy.say("one", "two")
    sender.fail("one", *[DestinationError("blocked")] * 2)
    deliver(andy)
    with andy.stage.db.write() as session:
        session.execute(update(Delivery).values(first_attempt_at=now_ms() - 900_000))
    assert try_again(andy, andy.stage.deliveries()[0]).state == "parked"
    assert sender.texts == ["two"]
    assert try_again(andy, andy.stage.deliveries()[0]).state == "delivered"
    assert sender.texts == ["two", "one"]


def test_a_row_that_will_never_go_is_dead_and_the_agent_is_told(andy: Speaker, sender: ScriptedSender) -> None:
    """The lane goes on at once; the notice is a chat row from `system` that wakes the agent."""
    ids = andy.say("one", "two")
    sender.fail("one", PermanentError("too long"))
    bells = Bells()
    drained = deliver(andy, bells)
    assert sender.texts == ["two"]
    assert ("wake", andy.id, "here") in drained.signals
    [(row_id, kind, channel, platform, trigger, content)] = andy.inbound(
        "SELECT id, kind, channel_type, platform_id, trigger, content FROM messages_in"
    )
    assert (kind, channel, platform, trigger) == ("chat", "agent", andy.agent_id, 1)
    assert row_id.startswith("sys-")
    said = json.loads(content)
    assert (said["sender"], said["senderId"]) == ("system", "system")
    assert said["text"] == "Your message #1 to family on scripted was not delivered: too long. It was tried once."
    told = dict(andy.inbound("SELECT message_out_id, status FROM delivered"))
    assert told == {ids[0]: "failed", ids[1]: "delivered"}
    with andy.stage.db.read() as session:
        assert session.get_one(AgentSession, andy.id).next_due_at == 0


def test_an_operator_may_have_a_dead_row_tried_again(andy: Speaker, sender: ScriptedSender) -> None:
    """With a fresh horizon; the agent sees that it was delivered after all, and a second death is a second notice."""
    andy.say("one")
    sender.fail("one", *[PermanentError("no")] * 2)
    deliver(andy)
    for _ in range(2):
        with andy.stage.db.write() as session:
            operator.retry(session, session.get_one(Delivery, andy.stage.deliveries()[0].id))
        try_again(andy, andy.stage.deliveries()[0])
    assert sender.texts == ["one"]
    assert andy.inbound("SELECT platform_message_id, status FROM delivered") == [("sent-1", "delivered")]
    assert len(andy.inbound("SELECT id FROM messages_in")) == 2
    [row] = andy.stage.deliveries()
    assert [made.outcome for made in andy.stage.attempts(row.id)] == ["permanent", "permanent", "delivered"]


def test_a_delivery_is_dead_after_its_horizon(andy: Speaker, sender: ScriptedSender) -> None:
    """Hours of trying end."""
    andy.say("one")
    sender.fail("one", *[TransientError("down")] * 2)
    deliver(andy)
    with andy.stage.db.write() as session:
        session.execute(update(Delivery).values(first_attempt_at=now_ms() - 21_600_000))
    assert try_again(andy, andy.stage.deliveries()[0]).state == "dead"
    assert len(andy.inbound("SELECT id FROM messages_in")) == 1


def test_notices_about_notices_end(andy: Speaker, sender: ScriptedSender) -> None:
    """An agent that answers each notice with a message that dies is not woken for ever."""
    woken = 0
    for number in range(8):
        text = f"sorry {number}"
        sender.fail(text, PermanentError("no"))
        andy.say(text)
        woken += ("wake", andy.id, "here") in deliver(andy).signals
    assert woken == 3
    assert len(andy.inbound("SELECT id FROM messages_in")) == 8


def test_a_notice_that_wakes_nobody_makes_nothing_due(andy: Speaker, sender: ScriptedSender) -> None:
    """Else a session whose agent lives and has nothing to do would be signalled again and again."""
    sender.fail("sorry", PermanentError("no"))
    andy.say("sorry", in_reply_to="sys-1")
    assert ("wake", andy.id, "here") not in deliver(andy).signals
    assert andy.inbound("SELECT trigger, status FROM messages_in") == [(0, "pending")]
    with andy.stage.db.read() as session:
        assert session.get_one(AgentSession, andy.id).next_due_at is None


def test_a_missing_channel_is_tried_again(andy: Speaker, stage: Stage) -> None:
    """It may be configured in a moment; it is never a delivery."""
    stage.chat("there", channel_type="nowhere")
    stage.allow(andy.agent_id, "there", "channel", "mg-there")
    andy.say("one", channel="nowhere", to="there")
    deliver(andy)
    [row] = stage.deliveries()
    assert (row.state, row.error_class) == ("retrying", "transient")


def test_an_error_that_no_contract_knows_is_tried_again(andy: Speaker, sender: ScriptedSender) -> None:
    """A bug in an adapter loses nothing and stops nobody."""
    andy.say("one")
    sender.fail("one", KeyError("oops"))
    deliver(andy)
    [row] = andy.stage.deliveries()
    assert (row.state, row.error_class, row.error_text) == ("retrying", "transient", "KeyError: 'oops'")


# Who may send where


@pytest.mark.parametrize("channel", [None, ""])
def test_a_message_without_an_address_is_dead(andy: Speaker, sender: ScriptedSender, channel: str | None) -> None:
    """NanoClaw 2 called it delivered."""
    andy.say("one", channel=channel)
    andy.say("two", to=None)
    deliver(andy)
    assert states(andy) == ["dead", "dead"]


def test_a_chat_that_is_no_destination_is_refused(andy: Speaker, sender: ScriptedSender, stage: Stage) -> None:
    """Its own chat and its destinations are all that an agent reaches."""
    stage.chat("work")
    andy.say("one", to="work")
    andy.say("two", to="unheard of")
    deliver(andy)
    first, second = stage.deliveries()
    assert first.state == second.state == "dead"
    assert "unauthorized" in (first.error_text or "")
    assert "There is no chat" in (second.error_text or "")
    assert sender.calls == []


def test_a_destination_opens_a_chat(andy: Speaker, sender: ScriptedSender, stage: Stage) -> None:
    """The row is the permission."""
    stage.allow(andy.agent_id, "work", "channel", stage.chat("work"))
    andy.say("one", to="work")
    deliver(andy)
    assert sender.texts == ["one"]


# Files, edits, reactions, actions


def test_files_go_along_and_are_removed_afterwards(andy: Speaker, sender: ScriptedSender) -> None:
    """Unsafe and missing ones stay behind; a failure keeps them for the next attempt."""
    [message_id] = andy.say("one", id="m1", content='{"text":"one","files":["a.txt","../b","none","link"]}')
    outbox = andy.folder.workspace / "outbox" / message_id
    outbox.mkdir()
    (outbox / "a.txt").write_bytes(b"hello")
    (outbox / "link").symlink_to("/etc/passwd")
    sender.fail("one", TransientError("busy"))
    deliver(andy)
    assert (outbox / "a.txt").exists()
    assert try_again(andy, andy.stage.deliveries()[0]).state == "delivered"
    assert [(file.name, file.data) for file in sender.arrived[0].files] == [("a.txt", b"hello")]
    assert not outbox.exists()


def test_a_file_that_this_host_cannot_read_now_is_waited_for(
    andy: Speaker, sender: ScriptedSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble of the disk is none of the file: the message goes out with it, by its next attempt."""
    [message_id] = andy.say("one", id="m1", content='{"text":"one","files":["a.txt"]}')
    outbox = andy.folder.workspace / "outbox" / message_id
    outbox.mkdir()
    (outbox / "a.txt").write_bytes(b"hello")

    def trouble(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(files, "_read_regular", trouble)
        deliver(andy)
    [row] = andy.stage.deliveries()
    assert (row.state, row.error_class) == ("retrying", "transient")
    assert try_again(andy, row).state == "delivered"
    assert [(file.name, file.data) for file in sender.arrived[0].files] == [("a.txt", b"hello")]


def test_an_edit_names_the_message_as_the_platform_does(andy: Speaker, sender: ScriptedSender) -> None:
    """Of an inbound message the agent knows the row id, of its own the platform's name or its row id."""
    andy.hear(f"platform-7:{andy.agent_id}")
    [own] = andy.say("one")
    deliver(andy)
    for message_id in (f"platform-7:{andy.agent_id}", own, "sent-1", f"other-9:{andy.agent_id}"):
        content = {"operation": "reaction", "messageId": message_id, "emoji": "eyes"}
        andy.say(message_id, content=json.dumps(content))
    deliver(andy)
    assert [message.content.get("messageId") for message in sender.arrived[1:]] == [
        "platform-7",
        "sent-1",
        "sent-1",
        "other-9",
    ]


def test_an_action_that_is_not_offered_is_refused(andy: Speaker, sender: ScriptedSender) -> None:
    """The agent is told; NanoClaw 2 called it delivered."""
    andy.say("act", kind="system", content='{"action":"schedule_task"}', to=None, channel=None)
    deliver(andy)
    assert states(andy) == ["dead"]
    [(content,)] = andy.inbound("SELECT content FROM messages_in")
    assert "request #1 (schedule_task)" in json.loads(content)["text"]


# What the agent acknowledged


def test_an_answered_message_ends_as_answered(andy: Speaker, sender: ScriptedSender) -> None:
    """Its row is completed and its route ends when the reply is out."""
    andy.hear("in-1")
    andy.say("reply", in_reply_to="in-1")
    andy.ack("completed", "in-1")
    deliver(andy)
    assert andy.inbound("SELECT status FROM messages_in WHERE id = 'in-1'") == [("completed",)]
    assert andy.route_state("in-1") == "answered"
    with andy.stage.db.read() as session:
        assert session.get_one(AgentSession, andy.id).next_due_at is None


def test_a_message_is_not_called_answered_before_its_reply_is_out(andy: Speaker, sender: ScriptedSender) -> None:
    """The acknowledgement comes with the reply; the reply may take hours."""
    andy.hear("in-1")
    andy.say("reply", in_reply_to="in-1")
    andy.ack("completed", "in-1")
    sender.fail("reply", TransientError("busy"))
    deliver(andy)
    assert andy.inbound("SELECT status FROM messages_in WHERE id = 'in-1'") == [("completed",)]
    assert andy.route_state("in-1") == "appended"
    try_again(andy, andy.stage.deliveries()[0])
    assert andy.route_state("in-1") == "answered"


def test_silence_ends_as_completed(andy: Speaker, sender: ScriptedSender) -> None:
    """An agent may have nothing to say; a claim alone ends nothing."""
    andy.hear("in-1")
    andy.hear("in-2")
    andy.ack("completed", "in-1")
    andy.ack("processing", "in-2")
    deliver(andy)
    assert (andy.route_state("in-1"), andy.route_state("in-2")) == ("completed", "appended")
    assert andy.inbound("SELECT status FROM messages_in ORDER BY seq") == [("completed",), ("pending",)]


def test_a_message_that_the_agent_gave_up_ends_with_a_word_to_its_sender(andy: Speaker, sender: ScriptedSender) -> None:
    """Completed in the file (NanoClaw 2's rule), dead as a route, and nobody is left waiting."""
    andy.hear("in-1")
    andy.ack("failed", "in-1")
    drained = deliver(andy)
    assert andy.inbound("SELECT status FROM messages_in WHERE id = 'in-1'") == [("completed",)]
    assert andy.route_state("in-1") == "dead"
    assert ("deliver", andy.id, "here") in drained.signals
    deliver(andy)
    assert sender.texts == ["Sorry, your message could not be answered."]


def test_a_crash_between_the_two_records_is_mended(andy: Speaker, sender: ScriptedSender) -> None:
    """A row that is completed in the file ends its route, whoever completed it."""
    andy.hear("in-1")
    andy.say("reply", in_reply_to="in-1")
    with sqlite3.connect(andy.folder.inbound_db) as inbound:
        inbound.execute("UPDATE messages_in SET status = 'completed'")
    inbound.close()
    deliver(andy)
    assert andy.route_state("in-1") == "answered"


def test_an_agent_that_answers_before_the_append_is_recorded_is_not_due(andy: Speaker, sender: ScriptedSender) -> None:
    """The record of the append makes the session due; the round that ends the message takes that back."""
    stage = andy.stage
    andy.hear("in-1")
    with stage.db.write() as session:
        session.execute(update(InboundRoute).values(state="pending"))
    andy.say("reply", in_reply_to="in-1")
    andy.ack("completed", "in-1")
    deliver(andy)
    assert append_session(stage.db, stage.settings.data_dir, andy.id) == Appended(1, True)
    deliver(andy)
    assert andy.route_state("in-1") == "answered"
    with stage.db.read() as session:
        assert session.get_one(AgentSession, andy.id).next_due_at is None


def test_an_unprojected_delivery_is_projected_by_the_next_round(andy: Speaker, sender: ScriptedSender) -> None:
    """A process that died after the outcome left it so; nothing is sent again."""
    [message_id] = andy.say("one")
    deliver(andy)
    with sqlite3.connect(andy.folder.inbound_db) as inbound:
        inbound.execute("DELETE FROM delivered")
    inbound.close()
    with andy.stage.db.write() as session:
        session.execute(update(Delivery).values(projected_at=None))
    deliver(andy)
    assert andy.inbound("SELECT message_out_id FROM delivered") == [(message_id,)]
    assert sender.texts == ["one"]


# Time


def test_a_slow_channel_goes_on_in_the_background(andy: Speaker, sender: ScriptedSender) -> None:
    """The task ends after its wait, and the session is rung when the send has ended."""
    settings = replace(andy.stage.settings, delivery_wait_s=0.02, worker_concurrency=1)
    sender.before = lambda _message: time.sleep(0.3)
    andy.say("one")
    bells = Bells()
    drained = deliver(andy, bells, settings)
    assert drained.in_background
    assert states(andy) == ["sending"]
    wait_for(lambda: bells.rung == [("deliver", andy.id, "here")], what="the session is rung")
    assert finish_background(1.0)
    deliver(andy)
    assert states(andy) == ["delivered"]
    assert andy.inbound("SELECT status FROM delivered") == [("delivered",)]


def test_a_later_attempt_that_gets_no_token_is_not_made(stage: Stage) -> None:
    """It stays due, and its session is looked at again."""
    slow = ScriptedSender()
    with channel_of(slow, "slow", Capabilities(rate_limit_per_s=10.0)):
        andy = stage.session("andy", stage.agent("andy"), stage.chat("family", "slow"))
        slow.fail("one", TransientError("away"))
        andy.say("one", channel="slow")
        deliver(andy)
        (row,) = stage.deliveries()
        with stage.db.write() as session:
            session.execute(update(Delivery).values(next_attempt_at=now_ms()))
        made = attempt(stage.db, stage.settings, row.id, 2, bells=Bells(pauses=[60.0]))
    assert not made.made
    assert ("deliver", andy.id, HOST) in made.signals
    assert len(slow.calls) == 1


def test_a_rate_limit_is_waited_for_before_the_claim(stage: Stage) -> None:
    """A row that waits for its token is not yet `sending`."""
    slow = ScriptedSender()
    with channel_of(slow, "slow", Capabilities(rate_limit_per_s=10.0)):
        andy = stage.session("andy", stage.agent("andy"), stage.chat("there", channel_type="slow"))
        andy.say("one", "two", to="there", channel="slow")
        bells = Bells(pauses=[0.05, 0.0, 0.05])
        deliver(andy, bells)
    assert slow.texts == ["one", "two"]
    assert bells.pauses == []


def test_an_agent_cannot_take_the_id_of_a_host_message(andy: Speaker, sender: ScriptedSender) -> None:
    """What it writes under one is delivered under another, and the notice that the host owes is not swallowed."""
    andy.hear("m1:ag-andy")
    andy.say("anything", id="host-unanswered-m1:ag-andy")
    deliver(andy)
    andy.ack("failed", "m1:ag-andy")
    deliver(andy)
    deliver(andy)
    assert sender.texts == ["anything", UNANSWERED]


def test_a_message_whose_row_is_gone_is_appended_again(andy: Speaker, sender: ScriptedSender) -> None:
    """An inbound.db that was restored from an older copy loses no message."""
    andy.hear("m1:ag-andy")
    connection = sqlite3.connect(andy.folder.inbound_db)
    with connection:
        connection.execute("DELETE FROM messages_in")
    connection.close()
    drained = deliver(andy)
    assert andy.route_state("m1:ag-andy") == "pending"
    assert ("append", andy.id, HOST) in drained.signals


def test_the_outbox_is_cleared_however_often_a_round_is_cut_short(
    andy: Speaker, sender: ScriptedSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of what is out are removed before the ledger forgets that this is to be done."""

    class Killed(BaseException): ...

    def die(*_facts: object) -> None:
        raise Killed

    andy.say("report", id="msg-1", content=json.dumps({"text": "report", "files": ["a.txt"]}))
    files = andy.folder.outbox / "msg-1"
    files.mkdir(parents=True)
    (files / "a.txt").write_text("figures")
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "clear", die)
        with pytest.raises(Killed):
            deliver(andy)
    assert files.exists()
    deliver(andy)
    assert not files.exists()
    assert sender.texts == ["report"]


def test_the_files_of_a_message_are_bounded_together(andy: Speaker, sender: ScriptedSender) -> None:
    """All of them are in memory at one time; those that find no room are left out, and the message goes."""
    andy.stage.settings = replace(andy.stage.settings, outbox_max_file_mb=1)
    names = ["a.bin", "b.bin", "c.bin", "d.bin"]
    andy.say("report", id="msg-1", content=json.dumps({"text": "report", "files": names}))
    files = andy.folder.outbox / "msg-1"
    files.mkdir(parents=True)
    for name in names:
        (files / name).write_bytes(b"x" * (900 * 1024))
    deliver(andy)
    (sent,) = sender.arrived
    assert [file.name for file in sent.files] == ["a.bin", "b.bin"]


def test_half_an_emoji_settles_like_anything_else(andy: Speaker, sender: ScriptedSender) -> None:
    """JavaScript cuts texts in the middle of a pair, and JSON can spell that; the round after it goes on."""
    andy.say("cut", content='{"text":"cut \\ud83d"}')
    andy.say("request", kind="system", content='{"action":"\\ud800"}', to=None, channel=None)
    andy.say("later")
    deliver(andy)
    assert sender.texts == ["cut \ud83d", "later"]
    assert states(andy) == ["delivered", "dead", "delivered"]
    assert all(row.projected_at for row in andy.stage.deliveries())


@pytest.mark.parametrize("error", [RecursionError("too deep"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no")])
def test_what_cannot_be_written_holds_no_lane(andy: Speaker, sender: ScriptedSender, error: Exception) -> None:
    """It never will be, so it is given up at once and the next message goes."""
    sender.fail("one", error)
    andy.say("one", "two")
    deliver(andy)
    assert states(andy) == ["dead", "delivered"]


def test_a_flood_of_dead_messages_is_told_in_few_words(andy: Speaker) -> None:
    """The first ones singly, the others in one row."""
    andy.say(*(f"m{number}" for number in range(60)), to="nowhere", channel="scripted")
    deliver(andy)
    told = [json.loads(content)["text"] for (content,) in andy.inbound("SELECT content FROM messages_in ORDER BY seq")]
    assert len(told) == SINGLY + 1
    assert told[-1].startswith("40 more of your messages (#")


def test_a_session_has_one_round_at_a_time(andy: Speaker, sender: ScriptedSender) -> None:
    """A second one returns at once, and the first has the session looked at once more."""
    entered, go_on = threading.Event(), threading.Event()

    def wait(_message: OutboundMessage) -> None:
        entered.set()
        assert go_on.wait(10)

    sender.before = wait
    patient = replace(andy.stage.settings, delivery_wait_s=10.0)
    andy.say("one")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(deliver, andy, None, patient)
        assert entered.wait(10)
        assert deliver(andy) == Drained()
        go_on.set()
        assert ("deliver", andy.id, HOST) in first.result(10).signals
    assert deliver(andy).signals == []


def test_a_row_that_an_operator_retries_begins_with_the_first_pause(andy: Speaker, sender: ScriptedSender) -> None:
    """Not with the pause that its earlier failures had grown to."""
    andy.say("one")
    sender.fail("one", *[TransientError("down")] * 5)
    deliver(andy)
    for _ in range(3):
        try_again(andy, andy.stage.deliveries()[0])
    grown = andy.stage.deliveries()[0]
    assert grown.next_attempt_at is not None
    assert grown.next_attempt_at - now_ms() > 4 * 1000 * andy.stage.settings.delivery_backoff_s * 0.5
    with andy.stage.db.write() as session:
        operator.retry(session, session.get_one(Delivery, grown.id))
    made = try_again(andy, andy.stage.deliveries()[0])
    assert made.number == 5
    assert made.next_attempt_ms is not None
    assert made.next_attempt_ms - now_ms() <= 1000 * andy.stage.settings.delivery_backoff_s


def test_messages_that_are_answered_together_are_answered(andy: Speaker, sender: ScriptedSender) -> None:
    """One reply names one of them; a message that got no answer of any kind is only completed."""
    andy.hear("m1:ag-andy")
    andy.hear("m2:ag-andy")
    andy.hear("m3:ag-andy", reply_to="elsewhere")
    andy.say("to both", in_reply_to="m2:ag-andy")
    andy.ack("completed", "m1:ag-andy", "m2:ag-andy", "m3:ag-andy")
    deliver(andy)
    ends = [andy.route_state(f"m{number}:ag-andy") for number in (1, 2, 3)]
    assert ends == ["answered", "answered", "completed"]


def test_a_message_that_ends_without_an_answer_says_why(andy: Speaker, sender: ScriptedSender) -> None:
    """An operator reads it on its route."""
    andy.hear("m1:ag-andy")
    connection = sqlite3.connect(andy.folder.inbound_db)
    with connection:
        connection.execute("UPDATE messages_in SET status = 'failed', tries = 5")
    connection.close()
    deliver(andy)
    with andy.stage.db.read() as session:
        (route,) = session.scalars(select(InboundRoute))
    assert (route.state, route.error) == ("dead", "the agent ended 5 times while it worked on it")


def test_a_first_failure_has_a_line_in_flower(andy: Speaker, sender: ScriptedSender, bells: Bells) -> None:
    """Its task is rung at once, and says when it is tried again and why it failed."""
    andy.say("one")
    sender.fail("one", TransientError("down"))
    deliver(andy, bells)
    (row,) = andy.stage.deliveries()
    assert ("attempt", row.id, HOST, 2) in bells.rung
    early = attempt(andy.stage.db, andy.stage.settings, row.id, 2, bells=Bells())
    assert (early.made, early.next_attempt_ms, early.error_text) == (False, row.next_attempt_at, "down")


def test_a_session_without_a_folder_speaks_too(stage: Stage, sender: ScriptedSender) -> None:
    """An operator made it and said something in the agent's place; no message has come yet."""
    andy = stage.session("andy", stage.agent("andy"), stage.chat("family"))
    shutil.rmtree(andy.folder.root)
    with stage.db.write() as session:
        operator.say(session, session.get_one(AgentSession, andy.id), "We are moving.")
    deliver(andy)
    assert sender.texts == ["We are moving."]
    assert all(row.projected_at for row in stage.deliveries())
