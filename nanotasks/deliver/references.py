"""Edits and reactions name a message as the agent knows it; the platform knows it by another id.

An agent knows an inbound message by its row id, `<platform message id>:<agent group>`, and one of its own by what
the platform called it, or by its row id while it was not delivered yet. NanoClaw 2 sent the row ids to the platform.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute

OPERATIONS = ("edit", "reaction")


def with_platform_id(
    session: Session, session_id: str, agent_group_id: str, content: Mapping[str, Any]
) -> Mapping[str, Any]:
    """The content with `messageId` as the platform knows it."""
    known = content.get("messageId")
    if content.get("operation") not in OPERATIONS or not isinstance(known, str):
        return content
    found = _of_inbound(session, session_id, known) or _of_outbound(session, session_id, known)
    return {**content, "messageId": found or known.removesuffix(f":{agent_group_id}")}


def _of_inbound(session: Session, session_id: str, inbound_id: str) -> str | None:
    return session.scalar(
        select(InboundEvent.platform_message_id)
        .join(InboundRoute, InboundRoute.event_id == InboundEvent.id)
        .where(InboundRoute.session_id == session_id, InboundRoute.inbound_id == inbound_id)
    )


def _of_outbound(session: Session, session_id: str, message_out_id: str) -> str | None:
    return session.scalar(
        select(Delivery.platform_message_id).where(
            Delivery.session_id == session_id, Delivery.message_out_id == message_out_id
        )
    )
