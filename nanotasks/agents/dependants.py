"""What depends on a group, a chat, a user or a session, so that a delete can name it or take it along.

Foreign keys would refuse the delete anyway, but without saying what to do about it. Approvals and questions that
wait are dependants too: deleting them silently would leave somebody with a card that does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, cast, delete, func, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.types import String

from nanotasks.central.approvals import (
    PendingApproval,
    PendingChannelApproval,
    PendingQuestion,
    PendingSenderApproval,
)
from nanotasks.central.base import Base
from nanotasks.central.chats import Wiring
from nanotasks.central.deliveries import Delivery
from nanotasks.central.destinations import Destination
from nanotasks.central.events import InboundRoute
from nanotasks.central.hosts import HostFile, Instance
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import Member, UserDm, UserRole
from nanotasks.errors import ConflictError

_SHOWN = 3


@dataclass(frozen=True)
class Kind:
    """One kind of dependant: which rows, how one is called, and the command that deletes one (empty: none does)."""

    noun: str
    model: type[Base]
    condition: ColumnElement[bool]
    label: ColumnElement[Any]
    command: str = ""


def of_group(group_id: str) -> list[Kind]:
    """What depends on an agent group. Its own destinations and configuration are parts of it."""
    pointing = and_(Destination.target_type == "agent", Destination.target_id == group_id)
    return [
        Kind("sessions", AgentSession, AgentSession.agent_group_id == group_id, _text(AgentSession.id), "sessions"),
        Kind("wirings", Wiring, Wiring.agent_group_id == group_id, _text(Wiring.id), "wirings"),
        Kind("tasks", TaskSeries, TaskSeries.agent_group_id == group_id, _text(TaskSeries.id)),
        Kind("roles", UserRole, UserRole.agent_group_id == group_id, _text(UserRole.id), "roles"),
        _members(Member.agent_group_id == group_id),
        _destinations(and_(pointing, Destination.agent_group_id != group_id)),
        Kind(
            "approvals", PendingApproval, PendingApproval.agent_group_id == group_id, _text(PendingApproval.approval_id)
        ),
        Kind(
            "sender approvals",
            PendingSenderApproval,
            PendingSenderApproval.agent_group_id == group_id,
            _text(PendingSenderApproval.id),
        ),
        Kind(
            "channel approvals",
            PendingChannelApproval,
            PendingChannelApproval.agent_group_id == group_id,
            _text(PendingChannelApproval.messaging_group_id),
        ),
    ]


def of_chat(chat_id: str) -> list[Kind]:
    """What depends on a chat."""
    pointing = and_(Destination.target_type == "channel", Destination.target_id == chat_id)
    return [
        Kind("sessions", AgentSession, AgentSession.messaging_group_id == chat_id, _text(AgentSession.id), "sessions"),
        Kind("wirings", Wiring, Wiring.messaging_group_id == chat_id, _text(Wiring.id), "wirings"),
        _destinations(pointing),
        Kind("direct-message addresses", UserDm, UserDm.messaging_group_id == chat_id, _text(UserDm.user_id)),
        Kind(
            "sender approvals",
            PendingSenderApproval,
            PendingSenderApproval.messaging_group_id == chat_id,
            _text(PendingSenderApproval.id),
        ),
        Kind(
            "channel approvals",
            PendingChannelApproval,
            PendingChannelApproval.messaging_group_id == chat_id,
            _text(PendingChannelApproval.messaging_group_id),
        ),
    ]


def of_user(user_id: str) -> list[Kind]:
    """What depends on a user."""
    return [
        Kind("roles", UserRole, UserRole.user_id == user_id, _text(UserRole.id), "roles"),
        _members(Member.user_id == user_id),
        Kind("direct-message addresses", UserDm, UserDm.user_id == user_id, _text(UserDm.channel_type)),
    ]


def of_session(session_id: str) -> list[Kind]:
    """What depends on a session: its history in the ledger and the intake log."""
    return [
        Kind("deliveries", Delivery, Delivery.session_id == session_id, _text(Delivery.id), "deliveries"),
        Kind("routes", InboundRoute, InboundRoute.session_id == session_id, _text(InboundRoute.id)),
        Kind("runs", TaskRun, TaskRun.session_id == session_id, _text(TaskRun.id)),
        Kind("tasks", TaskSeries, TaskSeries.session_id == session_id, _text(TaskSeries.id)),
        Kind("instances", Instance, Instance.session_id == session_id, _text(Instance.id)),
        Kind("files", HostFile, HostFile.session_id == session_id, _text(HostFile.path)),
        Kind(
            "questions", PendingQuestion, PendingQuestion.session_id == session_id, _text(PendingQuestion.question_id)
        ),
        Kind(
            "approvals", PendingApproval, PendingApproval.session_id == session_id, _text(PendingApproval.approval_id)
        ),
    ]


def require_none(session: Session, name: str, kinds: Sequence[Kind]) -> None:
    """Raise `ConflictError` naming every dependant that is there, and the command that removes the first."""
    found = []
    first = ""
    for kind in kinds:
        labels = session.scalars(select(kind.label).where(kind.condition).order_by(kind.label).limit(_SHOWN)).all()
        if not labels:
            continue
        count = session.execute(select(func.count()).select_from(kind.model).where(kind.condition)).scalar_one()
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        found.append(f"{count} {kind.noun if count > 1 else _one(kind.noun)} ({', '.join(labels)}{more})")
        first = first or (f"nanotasks {kind.command} delete {labels[0]}" if kind.command else "")
    if found:
        one_by_one = f"Remove them first, beginning with `{first}`, or repeat" if first else "Repeat"
        raise ConflictError(
            f"{name} cannot be deleted.", why=f"It has {', '.join(found)}.", fix=f"{one_by_one} with --cascade."
        )


def remove(session: Session, kinds: Sequence[Kind]) -> None:
    """Delete every dependant of these kinds. Sessions are not deleted here: they have dependants of their own."""
    for kind in kinds:
        if kind.model is not AgentSession:
            session.execute(delete(kind.model).where(kind.condition))


def forget_grants_by(session: Session, user_id: str) -> None:
    """Roles and memberships given by this user stay; only the note of who gave them goes."""
    session.execute(update(UserRole).where(UserRole.granted_by == user_id).values(granted_by=None))
    session.execute(update(Member).where(Member.added_by == user_id).values(added_by=None))


def _one(noun: str) -> str:
    """The singular: of deliveries, addresses, wirings."""
    for plural, singular in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if noun.endswith(plural):
            return noun.removesuffix(plural) + singular
    return noun


def _members(condition: ColumnElement[bool]) -> Kind:
    return Kind("members", Member, condition, Member.user_id + literal(" ") + Member.agent_group_id, "members")


def _destinations(condition: ColumnElement[bool]) -> Kind:
    label = Destination.agent_group_id + literal(" ") + Destination.local_name
    return Kind("destinations", Destination, condition, label, "destinations")


def _text(column: Any) -> ColumnElement[Any]:
    return cast(column, String)
