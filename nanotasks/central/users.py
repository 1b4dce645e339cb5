"""Users, their roles and memberships, and the direct-message chat that reaches each."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, RowNumber, one_of
from nanotasks.domain.vocabulary import ROLES


class User(Base):
    """A person on a platform; the id is `<channel>:<handle>`. `timezone` (IANA) is for what they schedule."""

    __tablename__ = "users"

    id: Mapped[Id]
    kind: Mapped[str]
    display_name: Mapped[str | None]
    created_at: Mapped[Millis]
    timezone: Mapped[str | None]


class UserRole(Base):
    """A role, global where agent_group_id is NULL. An owner is always global."""

    __tablename__ = "user_roles"
    __table_args__ = (
        one_of("role", *ROLES),
        CheckConstraint("role <> 'owner' OR agent_group_id IS NULL", name="owner_is_global"),
    )

    id: Mapped[RowNumber]
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    role: Mapped[str]
    agent_group_id: Mapped[str | None] = mapped_column(ForeignKey("agent_groups.id"))
    granted_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    granted_at: Mapped[Millis]


# A plain unique key lets several global roles through, since NULLs differ from each other.
Index(
    "uq_user_roles_grant",
    UserRole.user_id,
    UserRole.role,
    func.coalesce(UserRole.agent_group_id, ""),
    unique=True,
)
Index("ix_user_roles_scope", UserRole.agent_group_id, UserRole.role)


class Member(Base):
    """A user who may talk to an agent group."""

    __tablename__ = "agent_group_members"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id"), primary_key=True)
    added_by: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    added_at: Mapped[Millis]


class UserDm(Base):
    """The chat that reaches a user directly on one channel."""

    __tablename__ = "user_dms"

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True)
    channel_type: Mapped[str] = mapped_column(primary_key=True)
    messaging_group_id: Mapped[str] = mapped_column(ForeignKey("messaging_groups.id"))
    resolved_at: Mapped[Millis]
