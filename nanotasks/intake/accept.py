"""Taking messages in: one transaction per batch, and only then the platform gets its answer.

    producers (receivers, webhooks)   ── prepare ──▶ queue ──▶ writer thread
                                                                 one transaction: chats' counters, events, media
    futures are answered after the commit, and each chat is rung once

Many producers share one commit, since the disk's fsync is what a commit costs. In a batch every message stands
for itself: one that the database refuses fails alone. What each crash does:

- before the commit: nothing is stored and no producer was answered; the platform sends again.
- after the commit, before the answer: the platform sends again, and gets the first event's id as a duplicate.
- after the answer, before the ring: the sweep finds the pending event.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, bindparam, func, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError

from nanotasks import faults, logs
from nanotasks.central.base import table_of
from nanotasks.central.engine import Database, insert_missing
from nanotasks.central.events import ChatCounter, InboundEvent, MediaBlob
from nanotasks.channels.contract import Accepted, InboundMessage
from nanotasks.errors import DependencyDownError, InvalidError, NanotasksError, TooManyError
from nanotasks.ids import new_id
from nanotasks.intake.media import Media
from nanotasks.intake.prepared import Prepared, prepare

_log = logs.get("intake")

MAX_BATCH = 256
MAX_QUEUED = 20_000
_RETRY_AFTER_S = 1.0
_LINGER_S = 0.002

Chat = tuple[str, str]
Outcome = Accepted | NanotasksError
_REFUSED = (DBAPIError, UnicodeError, OverflowError)

_PENDING = (
    select(func.count())
    .select_from(InboundEvent)
    .where(
        InboundEvent.channel_type == bindparam("channel_type"),
        InboundEvent.platform_id == bindparam("platform_id"),
        # Written out, so that SQLite sees that the partial index fits.
        text("state = 'pending'"),
    )
)
_KNOWN = select(InboundEvent.id).where(
    InboundEvent.channel_type == bindparam("channel_type"),
    InboundEvent.platform_id == bindparam("platform_id"),
    InboundEvent.platform_message_id == bindparam("platform_message_id"),
    InboundEvent.digest == bindparam("digest"),
)


def accept_all(db: Database, messages: Sequence[Prepared], *, max_pending: int) -> list[Outcome]:
    """Enter messages in the intake log, in this order; what became of each, once all of it is committed.

    A message over its chat's limit is a `TooManyError`, one that the database refuses an `InvalidError`. Raises
    `DependencyDownError` when nothing was stored.
    """
    try:
        with db.write() as session:
            outcomes = _enter(session.connection(), messages, max_pending)
            faults.point("accept.before_commit")
            return outcomes
    except _REFUSED as error:
        if isinstance(error, OperationalError):
            raise
    with db.write() as session:
        return [_enter_alone(session.connection(), message, max_pending) for message in messages]


def _enter_alone(connection: Connection, message: Prepared, max_pending: int) -> Outcome:
    try:
        with connection.begin_nested():
            return _enter(connection, [message], max_pending)[0]
    except _REFUSED as error:
        if isinstance(error, OperationalError):
            raise
        return InvalidError("The message cannot be stored.", why=str(error).partition("\n")[0])


def _enter(connection: Connection, messages: Sequence[Prepared], max_pending: int) -> list[Outcome]:
    counts = Counter(message.chat for message in messages)
    following: dict[Chat, int] = {}
    room: dict[Chat, int] = {}
    # Sorted, so that two gateways never wait for each other's chats.
    for chat in sorted(counts):
        following[chat] = _take_numbers(connection, chat, counts[chat])
        room[chat] = max_pending - _count_pending(connection, chat)
    entered: list[_Entered] = []
    outcomes: list[Outcome] = []
    for at, message in enumerate(messages):
        chat = message.chat
        room[chat] -= 1
        if room[chat] < 0:
            outcomes.append(_too_many(chat))
            continue
        event_id = new_id("ev")
        row = {"id": event_id, "accept_order": following[chat], **message.row}
        following[chat] += 1
        outcomes.append(Accepted(event_id))
        entered.append(_Entered(at, event_id, row, message.media))
    if entered:
        _insert(connection, entered, outcomes)
    return outcomes


def _insert(connection: Connection, entered: list[_Entered], outcomes: list[Outcome]) -> None:
    stored = connection.execute(insert_missing(connection, InboundEvent), [one.row for one in entered]).rowcount
    if stored != len(entered):
        for one in entered:
            known = connection.execute(_KNOWN, one.row).scalar_one()
            if known != one.event_id:
                outcomes[one.at] = Accepted(known, duplicate=True)
    blobs = [
        {
            "id": media.blob_id,
            "event_id": one.event_id,
            "position": media.position,
            "name": media.name,
            "content_type": media.content_type,
            "size_bytes": len(media.data),
            "data": media.data,
            "created_at": one.row["received_at"],
        }
        for one in entered
        for media in one.media
        if outcomes[one.at] == Accepted(one.event_id)
    ]
    if blobs:
        connection.execute(insert(table_of(MediaBlob)), blobs)


def _take_numbers(connection: Connection, chat: Chat, count: int) -> int:
    """The first of `count` new places in the chat's order; until the commit nobody else gets any."""
    values = {"channel_type": chat[0], "platform_id": chat[1], "last_order": count}
    last: int = connection.execute(_counting(connection.dialect.name), values).scalar_one()
    return last - count + 1


@functools.cache
def _counting(dialect: str) -> Executable:
    insertion = (postgresql.insert if dialect == "postgresql" else sqlite.insert)(table_of(ChatCounter))
    return insertion.on_conflict_do_update(
        index_elements=["channel_type", "platform_id"],
        set_={"last_order": ChatCounter.last_order + insertion.excluded.last_order},
    ).returning(ChatCounter.last_order)


def _count_pending(connection: Connection, chat: Chat) -> int:
    return connection.execute(_PENDING, {"channel_type": chat[0], "platform_id": chat[1]}).scalar_one()


def _too_many(chat: Chat) -> TooManyError:
    return TooManyError(
        f"Too many messages of {chat[0]}:{chat[1]} wait to be routed.",
        retry_after_s=_RETRY_AFTER_S,
        fix="Send it again later; if this lasts, see whether the workers run.",
    )


class _Entered(NamedTuple):
    at: int
    event_id: str
    row: dict[str, Any]
    media: list[Media]


class _Waiting(NamedTuple):
    message: Prepared
    outcome: Future[Accepted]


class Acceptor:
    """The door to the intake log for one process: thread-safe, one writer, many messages per commit."""

    def __init__(self, db: Database, *, max_pending: int, ring: Callable[[str, str], None]) -> None:
        """`max_pending` unrouted messages are allowed per chat; `ring(channel_type, platform_id)` says "look"."""
        self._db = db
        self._max_pending = max_pending
        self._ring = ring
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._closed = False

    def accept(self, message: InboundMessage) -> Accepted:
        """Store one message and wait for the commit.

        Raises `InvalidError` for a message that cannot be stored, `TooManyError` (429) when its chat has too many
        waiting, `DependencyDownError` (503) when the database did not commit: then the platform is to send again.
        """
        return self.submit(message).result()

    def submit(self, message: InboundMessage) -> Future[Accepted]:
        """As `accept`, without waiting: the future has the answer, or the error."""
        waiting = _Waiting(prepare(message), Future())
        if self._queue.qsize() >= MAX_QUEUED:
            raise TooManyError("Too many messages wait to be stored.", retry_after_s=_RETRY_AFTER_S)
        with self._lock:
            if self._closed:
                raise DependencyDownError("This gateway is stopping.", fix="Send the message again.")
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="accept", daemon=True)
                self._writer.start()
            self._queue.put(waiting)
        return waiting.outcome

    def close(self) -> None:
        """Store what is queued, and stop. Messages that come later are refused."""
        with self._lock:
            self._closed = True
            writer = self._writer
            self._queue.put(None)
        if writer is not None:
            writer.join()

    def _write(self) -> None:
        batch: list[_Waiting | None] = []
        producers = 1
        while None not in batch:
            batch = self._gather(producers)
            # A producer that gave up before its message was taken gets no answer, and stores nothing.
            waiting = [one for one in batch if one is not None and one.outcome.set_running_or_notify_cancel()]
            if waiting:
                self._commit(waiting)
            producers = len(waiting) + self._queue.qsize()

    def _gather(self, producers: int) -> list[_Waiting | None]:
        """The next batch. Producers that were just answered come back at once, so they are waited for a moment."""
        batch = [self._queue.get()]
        deadline = time.monotonic() + _LINGER_S
        while len(batch) < MAX_BATCH and batch[-1] is not None:
            wait_s = deadline - time.monotonic() if len(batch) < producers else 0.0
            try:
                batch.append(self._queue.get(timeout=max(wait_s, 0.0)))
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[_Waiting]) -> None:
        outcomes: list[Outcome]
        try:
            outcomes = accept_all(self._db, [one.message for one in batch], max_pending=self._max_pending)
        except NanotasksError as error:
            outcomes = [error] * len(batch)
        except Exception as error:
            down = DependencyDownError(
                "The message was not stored.", why=str(error).partition("\n")[0] or type(error).__name__
            )
            outcomes = [down] * len(batch)
        faults.point("accept.after_commit")
        _tell(batch, outcomes)
        for chat in dict.fromkeys(one.message.chat for one, made in zip(batch, outcomes, strict=True) if _is_new(made)):
            self._ring(*chat)
        for one, made in zip(batch, outcomes, strict=True):
            if isinstance(made, Accepted):
                one.outcome.set_result(made)
            else:
                one.outcome.set_exception(made)


def _tell(batch: Sequence[_Waiting], outcomes: Sequence[Outcome]) -> None:
    """One line for all messages of a commit: a line for each would cost more than storing it."""
    new = [
        (made.event_id, one.message)
        for one, made in zip(batch, outcomes, strict=True)
        if isinstance(made, Accepted) and not made.duplicate
    ]
    if new:
        messages = [message.row["platform_message_id"] for _, message in new]
        chats = [":".join(chat) for chat in dict.fromkeys(message.chat for _, message in new)]
        _log.info("accepted", messages=messages, events=[event_id for event_id, _ in new], chats=chats)


def _is_new(outcome: Outcome) -> bool:
    return isinstance(outcome, Accepted) and not outcome.duplicate
