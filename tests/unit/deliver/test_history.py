"""What was delivered long ago costs nothing now."""

from __future__ import annotations

import sqlite3
import time

from sqlalchemy import insert, update

from nanotasks.central.base import table_of
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.sessions import AgentSession
from nanotasks.deliver.service import deliver_session
from nanotasks.testing import ScriptedSender
from tests.scene import HOST, Bells, Speaker, Stage

ROWS = 10_000


def write_history(stage: Stage, speaker: Speaker) -> None:
    """A session that has spoken ten thousand times, and was answered each time."""
    numbers = range(1, ROWS + 1)
    with sqlite3.connect(speaker.folder.outbound_db) as outbound:
        outbound.executemany(
            "INSERT INTO messages_out (id, seq, in_reply_to, timestamp, kind, platform_id, channel_type, content)"
            " VALUES (?, ?, ?, '', 'chat', 'family', 'scripted', '{}')",
            [(f"old-{number}", 2 * number + 1, f"in-{number}") for number in numbers],
        )
        outbound.executemany(
            "INSERT INTO processing_ack VALUES (?, 'completed', '')", [(f"in-{number}",) for number in numbers]
        )
    outbound.close()
    with sqlite3.connect(speaker.folder.inbound_db) as inbound:
        inbound.executemany(
            "INSERT INTO messages_in (id, seq, kind, timestamp, status, content) VALUES (?, ?, 'chat', '', ?, '{}')",
            [(f"in-{number}", 2 * number, "completed") for number in numbers],
        )
        inbound.executemany(
            "INSERT INTO delivered VALUES (?, NULL, 'delivered', '')", [(f"old-{number}",) for number in numbers]
        )
    inbound.close()
    common = {"session_id": speaker.id, "agent_group_id": speaker.agent_id, "created_at": 1}
    with stage.db.write_core() as connection:
        connection.execute(
            insert(table_of(Delivery)),
            [
                {
                    **common,
                    "id": f"dlv-{number}",
                    "host_id": HOST,
                    "message_out_id": f"old-{number}",
                    "in_reply_to": f"in-{number}",
                    "seq": 2 * number + 1,
                    "lane": f"{speaker.id}|scripted|family",
                    "kind": "chat",
                    "content": "{}",
                    "state": "delivered",
                    "finished_at": 1,
                    "projected_at": 1,
                }
                for number in numbers
            ],
        )
        connection.execute(
            insert(table_of(InboundEvent)),
            [
                {
                    "id": f"ev-{number}",
                    "channel_type": "scripted",
                    "platform_id": "family",
                    "platform_message_id": f"p-{number}",
                    "digest": "",
                    "accept_order": number,
                    "kind": "chat",
                    "timestamp": "",
                    "content": "{}",
                    "received_at": 1,
                    "state": "routed",
                }
                for number in numbers
            ],
        )
        connection.execute(
            insert(table_of(InboundRoute)),
            [
                {**common, "event_id": f"ev-{number}", "trigger": 1, "inbound_id": f"in-{number}", "state": "answered"}
                for number in numbers
            ],
        )
        connection.execute(
            update(table_of(AgentSession))
            .where(AgentSession.id == speaker.id)
            .values(outbound_mark=ROWS, outbound_mark_id=f"old-{ROWS}")
        )


def cost_of_a_drain(speaker: Speaker) -> float:
    """The least CPU time of several rounds that deliver one answer each, in seconds."""
    costs = []
    for number in range(8):
        speaker.hear(f"new-{number}")
        speaker.say(f"answer {number}", in_reply_to=f"new-{number}")
        speaker.ack("completed", f"new-{number}")
        before = time.process_time()
        deliver_session(speaker.stage.db, speaker.stage.settings, speaker.id, bells=Bells())
        costs.append(time.process_time() - before)
    return min(costs)


def test_a_drain_is_as_quick_after_ten_thousand_rows(stage: Stage, sender: ScriptedSender) -> None:
    """NanoClaw 2 read them all, every second."""
    agent, chat = stage.agent("andy"), stage.chat("family")
    fresh, old = stage.session("fresh", agent, chat), stage.session("old", agent, chat)
    write_history(stage, old)
    without, with_history = cost_of_a_drain(fresh), cost_of_a_drain(old)
    assert len(sender.arrived) == 16
    assert with_history < 1.5 * without + 0.002
