"""Deliveries by an operator's hand: said anew, tried again, given up, forgotten (promise I8: audited by the caller).

Every function works in the caller's transaction and changes a row only from the state it was seen in: a worker may
be at it. After the commit, ring `deliver` for the session.
"""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from nanotasks.central.chats import Chat
from nanotasks.central.deliveries import Delivery
from nanotasks.central.engine import rows_changed
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.deliver.host_messages import PREFIX, enter_host_message
from nanotasks.errors import ConflictError, InvalidError
from nanotasks.ids import new_id

RETRYABLE = ("retrying", "parked", "held", "dead")
DISCARDABLE = ("pending", "retrying", "parked", "held")
FINISHED = ("delivered", "dead")


def say(session: Session, agent_session: AgentSession, text: str) -> Delivery:
    """Send a text into a session's chat in the agent's place. The agent does not learn of it.

    Raises `InvalidError` for an empty text or a session without a chat.
    """
    chat = session.get(Chat, agent_session.messaging_group_id) if agent_session.messaging_group_id else None
    if chat is None:
        raise InvalidError(f"The session {agent_session.id} belongs to no chat.", fix="Choose a session of a chat.")
    if not text.strip():
        raise InvalidError("There is nothing to say.", fix="Give a text.")
    key = new_id("operator")
    address = Address(chat.channel_type, chat.platform_id, agent_session.thread_id)
    enter_host_message(session, agent_session.id, key, address, text)
    return session.scalars(
        select(Delivery).where(Delivery.session_id == agent_session.id, Delivery.message_out_id == PREFIX + key)
    ).one()


def retry(session: Session, delivery: Delivery) -> None:
    """Try a delivery at once, with a fresh horizon. What has arrived without our knowing arrives twice then.

    After the commit, ring `attempt` for its next number, so that Flower goes on with its line.
    """
    _move(
        session,
        delivery,
        RETRYABLE,
        state="retrying" if delivery.attempts else "pending",
        next_attempt_at=now_ms(),
        first_attempt_at=None,
        finished_at=None,
        projected_at=None,
        signalled_at=None,
    )


def discard(session: Session, delivery: Delivery) -> None:
    """Give a delivery up; its lane goes on, and the agent is told."""
    _move(
        session,
        delivery,
        DISCARDABLE,
        state="dead",
        next_attempt_at=None,
        error_class="permanent",
        error_text="an operator gave it up",
        finished_at=now_ms(),
    )


def delete_delivery(session: Session, delivery: Delivery) -> None:
    """Forget a finished delivery with its attempts. Raises `ConflictError` for one that is still at work."""
    if delivery.state not in FINISHED:
        raise _refused(delivery, f"Give it up first: `nanotasks deliveries update {delivery.id} --state discard`.")
    if delivery.state == "delivered" and delivery.projected_at is None:
        raise ConflictError(
            f"The delivery {delivery.id} is not recorded in its session yet.", fix="Wait until its host has done so."
        )
    session.execute(delete(Delivery).where(Delivery.id == delivery.id, Delivery.state == delivery.state))


def _move(session: Session, delivery: Delivery, states: tuple[str, ...], **values: object) -> None:
    if delivery.state not in states:
        fix = "It is being sent right now; wait for the outcome." if delivery.state == "sending" else ""
        raise _refused(delivery, fix)
    seen = (Delivery.id == delivery.id) & (Delivery.state == delivery.state) & (Delivery.attempts == delivery.attempts)
    if rows_changed(session, update(Delivery).where(seen).values(**values)) != 1:
        raise ConflictError(f"A worker changed the delivery {delivery.id} meanwhile.", fix="Look at it again.")
    session.refresh(delivery)


def _refused(delivery: Delivery, fix: str) -> ConflictError:
    return ConflictError(f"The delivery {delivery.id} is {delivery.state}.", fix=fix)
