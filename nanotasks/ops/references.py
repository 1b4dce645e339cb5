"""How a person names a thing: by its id, by a beginning of the id that fits one thing only, or by its natural name.

    group       id, folder or name
    chat        id, `channel:platform_id` or name
    user        id (`channel:handle`) or display name
    wiring      id, or chat and group
    role        number, or user, role and group
    session     id
    delivery    id, or the Celery task of an attempt

An exact id or key wins over a name, a name over one in other case, that over a beginning. What fits several
things is a `UsageError` that lists them; what fits none is a `NotFoundError` with the nearest known name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from nanotasks.central.chats import Chat, Wiring
from nanotasks.central.deliveries import Delivery, DeliveryAttempt
from nanotasks.central.destinations import Destination
from nanotasks.central.events import InboundEvent
from nanotasks.central.groups import AgentGroup
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.central.users import Member, User, UserRole
from nanotasks.errors import NotFoundError, UsageError
from nanotasks.ops.suggest import did_you_mean

M = TypeVar("M")
_FEW = 6
_TASK_ID_LEAST = 8
_NAMES_COMPARED = 1000


def group(session: Session, text: str) -> AgentGroup:
    """The agent group that `text` names."""
    return _find(
        session,
        text,
        AgentGroup,
        "agent group",
        "groups",
        exact=(AgentGroup.id == text, AgentGroup.folder == text, AgentGroup.name == text),
        names=(AgentGroup.folder, AgentGroup.name),
    )


def chat(session: Session, text: str) -> Chat:
    """The chat that `text` names. A platform id may hold colons: the first one ends the channel's name."""
    channel_type, _, platform_id = text.partition(":")
    place = (Chat.channel_type == channel_type) & (Chat.platform_id == platform_id)
    return _find(
        session,
        text,
        Chat,
        "chat",
        "chats",
        exact=(Chat.id == text, place, Chat.name == text),
        names=(Chat.channel_type + ":" + Chat.platform_id, Chat.name),
    )


def user(session: Session, text: str) -> User:
    """The user that `text` names."""
    return _find(
        session,
        text,
        User,
        "user",
        "users",
        exact=(User.id == text, User.display_name == text),
        names=(User.id, User.display_name),
    )


def wiring(session: Session, text: str, group_text: str | None = None) -> Wiring:
    """The wiring with this id, or of this chat and this group."""
    if group_text is None:
        return _find(session, text, Wiring, "wiring", "wirings", exact=(Wiring.id == text,))
    here, agent = chat(session, text), group(session, group_text)
    found = session.scalars(
        select(Wiring).where(Wiring.messaging_group_id == here.id, Wiring.agent_group_id == agent.id)
    ).one_or_none()
    if found is None:
        raise NotFoundError(
            f"{agent.folder} is not wired to {place_of(here)}.",
            fix=f"Run `nanotasks wirings create {place_of(here)} {agent.folder}`.",
        )
    return found


def group_or_none(session: Session, group_id: str | None) -> AgentGroup | None:
    """The agent group with exactly this id, if there is an id."""
    return session.get(AgentGroup, group_id) if group_id is not None else None


def folder_of(session: Session, group_id: str) -> str:
    """The folder of the agent group with exactly this id."""
    return session.get_one(AgentGroup, group_id).folder


def host_of(session: Session, session_id: str) -> str | None:
    """The host that has a session's files."""
    return session.scalar(
        select(AgentGroup.host_id)
        .join(AgentSession, AgentSession.agent_group_id == AgentGroup.id)
        .where(AgentSession.id == session_id)
    )


def role(session: Session, text: str, word: str | None = None, group_text: str | None = None) -> UserRole:
    """The role with this number, or this role of this user in this group (in all when no group is given)."""
    if word is None:
        found = session.get(UserRole, int(text)) if text.isascii() and text.isdigit() else None
        if found is None:
            raise NotFoundError(
                f"There is no role {text!r}.", fix="Give its number, or USER ROLE [GROUP]; see `nanotasks roles list`."
            )
        return found
    person = user(session, text)
    scope = group(session, group_text).id if group_text is not None else None
    found = session.scalars(
        select(UserRole).where(
            UserRole.user_id == person.id, UserRole.role == word, UserRole.agent_group_id.is_not_distinct_from(scope)
        )
    ).one_or_none()
    if found is None:
        where = f"of {group_text}" if group_text is not None else "of everything"
        raise NotFoundError(
            f"{person.id} is not {word} {where}.", fix=f"`nanotasks roles list --user {person.id}` shows their roles."
        )
    return found


def member(session: Session, user_text: str, group_text: str) -> Member:
    """The membership of this user in this group."""
    person, agent = user(session, user_text), group(session, group_text)
    found = session.get(Member, (person.id, agent.id))
    if found is None:
        raise NotFoundError(
            f"{person.id} is not a member of {agent.folder}.",
            fix=f"Run `nanotasks members create {person.id} {agent.folder}`.",
        )
    return found


def destination(session: Session, group_text: str, name: str) -> Destination:
    """The destination of this group with this name."""
    agent = group(session, group_text)
    found = session.get(Destination, (agent.id, name))
    if found is None:
        names = list(session.scalars(select(Destination.local_name).where(Destination.agent_group_id == agent.id)))
        fix = did_you_mean(name, names) or f"`nanotasks destinations list --group {agent.folder}` shows what there is."
        raise NotFoundError(f"{agent.folder} has no destination {name!r}.", fix=fix)
    return found


def agent_session(session: Session, text: str) -> AgentSession:
    """The session with this id."""
    return _find(session, text, AgentSession, "session", "sessions", exact=(AgentSession.id == text,))


def task(session: Session, text: str) -> TaskSeries:
    """The scheduled task with this id or name."""
    return _find(
        session,
        text,
        TaskSeries,
        "scheduled task",
        "task",
        exact=(TaskSeries.id == text, TaskSeries.name == text),
        names=(TaskSeries.name,),
    )


def run(session: Session, text: str) -> TaskRun:
    """The run of a scheduled task with this id."""
    return _find(session, text, TaskRun, "run", "run", exact=(TaskRun.id == text,))


def delivery(session: Session, text: str) -> Delivery:
    """The delivery with this id, or one of whose attempts was this Celery task."""
    if len(text) >= _TASK_ID_LEAST and not text.startswith("dlv-"):
        of_task = DeliveryAttempt.task_id.startswith(text, autoescape=True)
        owners = session.scalars(select(DeliveryAttempt.delivery_id).where(of_task).distinct().limit(2)).all()
        if len(owners) == 1:
            return session.get_one(Delivery, owners[0])
    return _find(session, text, Delivery, "delivery", "deliveries", exact=(Delivery.id == text,))


def event(session: Session, text: str) -> InboundEvent:
    """The accepted message with this id."""
    return _find(session, text, InboundEvent, "accepted message", "intake", exact=(InboundEvent.id == text,))


def place(session: Session, text: str) -> tuple[str, str]:
    """The place of the chat that `text` names; `channel:platform_id` need not be registered."""
    try:
        found = chat(session, text)
    except NotFoundError:
        channel_type, colon, platform_id = text.partition(":")
        if not colon:
            raise
        return channel_type, platform_id
    return found.channel_type, found.platform_id


def place_of(chat: Chat) -> str:
    """`channel:platform_id`, the name of a chat that is the same everywhere."""
    return f"{chat.channel_type}:{chat.platform_id}"


def _find(
    session: Session,
    text: str,
    model: type[M],
    noun: str,
    command: str,
    *,
    exact: Sequence[ColumnElement[bool]],
    names: Sequence[ColumnElement[Any] | InstrumentedAttribute[Any]] = (),
) -> M:
    id_column: Any = model.id  # type: ignore[attr-defined]
    looser = [func.lower(name) == text.lower() for name in names] + [id_column.startswith(text, autoescape=True)]
    for condition in (*exact, *looser) if text else exact:
        found = session.scalars(select(model).where(condition).order_by(id_column).limit(_FEW)).all()
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(text, noun, [str(row.id) for row in found])  # type: ignore[attr-defined]
    known = [name for column in names for name in session.scalars(select(column).limit(_NAMES_COMPARED)) if name]
    raise _missing(text, noun, command, known)


def _ambiguous(text: str, noun: str, ids: Sequence[str]) -> UsageError:
    shown = ", ".join(ids[: _FEW - 1]) + (", …" if len(ids) == _FEW else "")
    return UsageError(f"{text!r} fits more than one {noun}.", why=f"It fits {shown}.", fix="Give the whole id.")


def _missing(text: str, noun: str, command: str, known: Iterable[str]) -> NotFoundError:
    fix = did_you_mean(text, known) or f"`nanotasks {command} list` shows what there is."
    return NotFoundError(f"There is no {noun} {text!r}.", fix=fix)
