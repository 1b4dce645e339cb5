"""Messages that the host itself sends into a chat, through the ledger like an agent's: refusals and apologies.

They have no row in outbound.db. Their id begins with `host-`; when one dies, no agent is told.
"""

from __future__ import annotations

from sqlalchemy import Connection, func, select
from sqlalchemy.orm import Session

from nanotasks.central.base import in_states
from nanotasks.central.deliveries import OPEN_STATES, Delivery
from nanotasks.central.engine import insert_missing, rows_changed
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.delivery import lane_of
from nanotasks.ids import new_id

PREFIX = "host-"


def enter_host_message(session: Session | Connection, session_id: str, key: str, address: Address, text: str) -> bool:
    """Enter a message from the host, in the caller's transaction; the same key of one session is one message.

    Returns whether it is new; then ring `deliver` for the session after the commit. The message stands behind what the
    session has said so far.
    """
    facts = session.execute(
        select(AgentSession.agent_group_id, AgentGroup.host_id)
        .join(AgentGroup, AgentGroup.id == AgentSession.agent_group_id)
        .where(AgentSession.id == session_id)
    ).one()
    lane = lane_of(session_id, address.channel_type, address.platform_id)
    last = session.scalar(
        select(func.max(Delivery.seq)).where(Delivery.lane == lane, in_states("deliveries", *OPEN_STATES))
    )
    now = now_ms()
    entered = rows_changed(
        session,
        insert_missing(session, Delivery),
        {
            "id": new_id("dlv"),
            "session_id": session_id,
            "agent_group_id": facts.agent_group_id,
            "host_id": facts.host_id,
            "message_out_id": PREFIX + key,
            "seq": last or 0,
            "lane": lane,
            "kind": "chat",
            "channel_type": address.channel_type,
            "platform_id": address.platform_id,
            "thread_id": address.thread_id,
            "content": dumps({"text": text}),
            "next_attempt_at": now,
            "created_at": now,
        },
    )
    return entered == 1


def is_from_host(message_out_id: str) -> bool:
    """Whether the host itself sent a message."""
    return message_out_id.startswith(PREFIX)
