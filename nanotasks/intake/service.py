"""Routing: from the accepted messages of one chat to the sessions of the agents that listen there.

    look (no lock)   read pending events in accept order, run engage patterns on them
    lock             the chat's counter row; on SQLite the whole database
    decide           each event at every wiring, from facts gathered for the batch
    write            sessions, routes, drops, refusals, and the events' ends; commit
    look again       in a new transaction, until nothing is pending

A batch is one commit. If anything in it fails, it is decided again event by event, each in a savepoint: so a
poisonous event fails alone. It is tried again, and its chat waits for it, since an agent sees a chat in accept
order; after `event_max_tries` failures within a minute it is dead, the chat is told, and goes on. Other chats never
notice. What each crash does: before the commit nothing happened, and the sweep finds the events; after it the
routes stand, and the sweep finds those that are not appended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from nanotasks import faults, logs
from nanotasks.central.engine import Database, is_own_fault
from nanotasks.channels.contract import Address
from nanotasks.clock import now_ms
from nanotasks.domain.routing import (
    INTERCEPTED,
    NO_CONTENT,
    DropNote,
    MessageFacts,
    Routing,
    decide_routing,
    decide_unwired,
)
from nanotasks.domain.sessions import thread_of
from nanotasks.errors import NanotasksError
from nanotasks.intake.facts import CapabilitiesOf, Facts, gather, selective_patterns
from nanotasks.intake.failure import Attempt, set_aside
from nanotasks.intake.pending import Chat, PatternVerdicts, PendingEvent, lock_chat, read_pending
from nanotasks.intake.placement import place
from nanotasks.intake.record import Record, SessionTakenError
from nanotasks.owners import this_owner
from nanotasks.settings import Settings

_log = logs.get("intake")

BATCH = 500
_PATTERN_BUDGET_S = 1.0
_TIME_BUDGET_S = 5.0

Interceptor = Callable[[Connection, Chat, PendingEvent], bool]


@dataclass(frozen=True)
class Touched:
    """A session with new routes. `trigger`: one of them wakes it. Without a host it waits until one is up."""

    session_id: str
    host_id: str | None
    trigger: bool


@dataclass(frozen=True)
class TypingTarget:
    """Where a session that was just woken shows that it is at work."""

    session_id: str
    agent_group_id: str
    host_id: str | None
    address: Address


@dataclass
class RouteResult:
    """What one call did, and what its caller should signal.

    `touched`: append there. `typing`: every session that was woken, with its latest address. `answered`: sessions
    (with host) that have a message of the host to deliver. `subscriptions`: threads the channel should report fully
    from now on. `more`: pending events are left, ring again. `retry_at_ms`: the chat waits for an event that
    failed, until then.
    """

    events: int = 0
    touched: dict[str, Touched] = field(default_factory=dict)
    typing: list[TypingTarget] = field(default_factory=list)
    answered: dict[str, str | None] = field(default_factory=dict)
    subscriptions: list[Address] = field(default_factory=list)
    more: bool = False
    retry_at_ms: int | None = None


def route_chat(
    db: Database,
    settings: Settings,
    channel_type: str,
    platform_id: str,
    *,
    capabilities: CapabilitiesOf,
    interceptors: Sequence[Interceptor] = (),
) -> RouteResult:
    """Route everything that is pending in one chat, for some seconds at most.

    `capabilities(channel_type)` is None for a channel this installation does not know: then threads are kept.
    An interceptor that returns True has consumed the event. Raises `DependencyDownError` when the database does
    not answer; what was routed until then stays routed.
    """
    found = capabilities(channel_type)
    supports_threads = None if found is None else found.supports_threads
    return _Router(db, settings, (channel_type, platform_id), supports_threads, interceptors).run()


class _Router:
    def __init__(
        self,
        db: Database,
        settings: Settings,
        chat: Chat,
        supports_threads: bool | None,
        interceptors: Sequence[Interceptor],
    ) -> None:
        self._db = db
        self._settings = settings
        self._chat = chat
        self._supports_threads = supports_threads
        self._interceptors = interceptors
        self._verdicts = PatternVerdicts(settings.engage_pattern_timeout_ms / 1000)
        self._result = RouteResult()

    def run(self) -> RouteResult:
        deadline = time.monotonic() + _TIME_BUDGET_S
        while events := self._look():
            if time.monotonic() > deadline:
                self._result.more = True
                break
            if not self._route(events):
                break
        return self._result

    def _look(self) -> Sequence[PendingEvent]:
        with self._db.read_core() as connection:
            events = read_pending(connection, self._chat, BATCH)
            patterns = selective_patterns(connection, self._chat) if events else set()
            waits_until = events[0].next_try_at if events else None
            waits = waits_until is not None and waits_until > self._db.now_ms(connection)
        if waits:
            self._result.retry_at_ms = waits_until
            return []
        return self._verdicts.run_ahead(sorted(patterns), events, _PATTERN_BUDGET_S)

    def _route(self, looked_at: Sequence[PendingEvent]) -> bool:
        """Route one batch in one transaction; False when the chat has to wait for an event that failed."""
        try:
            with self._db.write_core() as connection:
                events = self._still_pending(connection, looked_at)
                records = [self._attempt(connection, events)] if events else []
                hosts = _hosts(connection, records)
                faults.point("route.before_commit")
        except NanotasksError:
            raise
        except SessionTakenError:
            return True
        except Exception as error:
            _log.warning("batch_failed", channel=self._chat[0], chat=self._chat[1], error=str(error))
            return self._route_one_by_one(looked_at)
        faults.point("route.after_commit")
        self._report(records, hosts)
        return True

    def _route_one_by_one(self, looked_at: Sequence[PendingEvent]) -> bool:
        records: list[Record] = []
        told: dict[str, str] = {}
        go_on = True
        with self._db.write_core() as connection:
            for event in self._still_pending(connection, looked_at):
                try:
                    with connection.begin_nested():
                        records.append(self._attempt(connection, [event]))
                except SessionTakenError:
                    break
                except Exception as error:
                    if isinstance(error, OperationalError) and not is_own_fault(error):
                        raise
                    _log.error("event_failed", event_id=event.id, tries=event.tries + 1, exc_info=True)
                    worker = str(this_owner(self._settings.host_id))
                    attempt = Attempt(worker, self._db.now_ms(connection), self._settings.event_max_tries)
                    outcome = set_aside(connection, self._chat, event, error, attempt)
                    told.update([outcome.told] if outcome.told else [])
                    go_on = outcome.dead
                    if not go_on:
                        break
            hosts = _hosts(connection, records, told.values())
        self._report(records, hosts)
        self._result.answered.update({session_id: hosts[group_id] for session_id, group_id in told.items()})
        return go_on

    def _still_pending(self, connection: Connection, looked_at: Sequence[PendingEvent]) -> list[PendingEvent]:
        """Take the chat's lock. Another router may have taken some events since the look; the rest is in order."""
        by_id = {event.id: event for event in looked_at}
        return [by_id[one] for one in lock_chat(connection, self._chat, len(looked_at)) if one in by_id]

    def _attempt(self, connection: Connection, events: Sequence[PendingEvent]) -> Record:
        record = self._decide(connection, events)
        record.write(connection)
        return record

    def _decide(self, connection: Connection, events: Sequence[PendingEvent]) -> Record:
        now = now_ms()
        consumed = {
            event.id for event in events if any(take(connection, self._chat, event) for take in self._interceptors)
        }
        facts = gather(
            connection, self._chat, [event for event in events if event.id not in consumed], self._supports_threads, now
        )
        record = Record(self._chat, facts, now)
        for event in events:
            thread_id = thread_of(event.thread_id, self._supports_threads)
            if event.id in consumed:
                routing = Routing(drop=DropNote(INTERCEPTED))
            else:
                routing = self._decide_one(event, thread_id, facts)
            record.add(event, thread_id, routing)
        return record

    def _decide_one(self, event: PendingEvent, thread_id: str | None, facts: Facts) -> Routing:
        if event.content.is_empty:
            return Routing(drop=DropNote(NO_CONTENT))
        if facts.chat is None or not facts.wirings:
            return decide_unwired(facts.chat, is_mention=bool(event.is_mention))
        user_id = event.content.sender.user_id(self._chat[0])
        message = MessageFacts(
            event.kind, event.content, thread_id, bool(event.is_mention), user_id, facts.standing(user_id)
        )
        return decide_routing(
            message,
            facts.chat,
            facts.wirings,
            thread_engaged=lambda place: facts.thread_engaged(place, thread_id),
            matches=self._verdicts.matches,
        )

    def _report(self, records: Sequence[Record], hosts: dict[str, str | None]) -> None:
        result = self._result
        typing = {one.session_id: one for one in result.typing}
        for record in records:
            result.events += len(record.ends)
            _log.info(
                "routed",
                chat=":".join(self._chat),
                messages=record.messages,
                sessions=list(record.groups),
                dropped=len(record.drops),
            )
            for session_id, address in record.woken:
                group_id = record.groups[session_id]
                typing[session_id] = TypingTarget(session_id, group_id, hosts[group_id], address)
            for session_id, group_id in record.groups.items():
                result.touched[session_id] = Touched(session_id, hosts[group_id], trigger=session_id in typing)
            result.answered.update({one.session_id: hosts[one.agent_group_id] for one in record.refusals})
            result.subscriptions = list(dict.fromkeys([*result.subscriptions, *record.subscriptions]))
        result.typing = list(typing.values())


def _hosts(connection: Connection, records: Sequence[Record], others: Collection[str] = ()) -> dict[str, str | None]:
    """The host of every agent group that has something to do; a group without one gets one now."""
    hosts: dict[str, str | None] = {}
    for record in records:
        hosts.update(record.facts.hosts)
    wanted = {*(group_id for record in records for group_id in record.agent_groups), *others}
    missing = wanted - hosts.keys()
    return {**hosts, **place(connection, missing)} if missing else hosts
