"""State that channel libraries keep between calls: values, subscriptions, locks, lists."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Millis


class ChatSdkValue(Base):
    __tablename__ = "chat_sdk_kv"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]
    expires_at: Mapped[Millis | None]


class ChatSdkSubscription(Base):
    __tablename__ = "chat_sdk_subscriptions"

    thread_id: Mapped[str] = mapped_column(primary_key=True)
    subscribed_at: Mapped[Millis]


class ChatSdkLock(Base):
    __tablename__ = "chat_sdk_locks"

    thread_id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[str]
    expires_at: Mapped[Millis]


class ChatSdkListItem(Base):
    __tablename__ = "chat_sdk_lists"

    key: Mapped[str] = mapped_column(primary_key=True)
    idx: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str]
    expires_at: Mapped[Millis | None]
