"""What one message does: for every agent that listens in its chat, on its own (NanoClaw 2's fan-out, mended).

    engage → access → sender scope → command gate → session

    engaged and let in             wake      a route with trigger 1
    not engaged, "accumulate"      context   a route with trigger 0: read when the agent is woken next
    either, but with a command     filter    the command means nothing here, and goes no further
      that is not for everybody    refuse    the sender is told so
    engaged, but refused           nothing   what a refused sender says is not kept
    not engaged, "drop"            nothing

A refusal at one agent never stops another. A message leaves one note in the drop log, with its first and most
specific reason: a gate's, before the one that nobody engaged. Commands have a session too, as they had in
NanoClaw 2: a refusal is one of its deliveries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nanotasks.domain.access import Standing, access_gate, may_administer, scope_gate
from nanotasks.domain.commands import CommandGate, gate_command
from nanotasks.domain.content import Content
from nanotasks.domain.engage import EngageFacts, engages
from nanotasks.domain.sessions import SessionPlace, effective_mode, session_place

# Reasons in the drop log; those of the access gate are in `access`.
NO_CONTENT = "no_content"
INTERCEPTED = "intercepted"
NOT_MENTIONED = "not_mentioned"
CHAT_DENIED = "chat_denied"
NO_AGENT_WIRED = "no_agent_wired"
NO_AGENT_ENGAGED = "no_agent_engaged"
COMMAND_FILTERED = "command_filtered"
COMMAND_REFUSED = "command_refused"


class Action(StrEnum):
    WAKE = "wake"
    CONTEXT = "context"
    FILTER = "filter"
    REFUSE = "refuse"


@dataclass(frozen=True)
class MessageFacts:
    """One message after the thread policy, and who sent it: nobody known has no user id and is `access.NOBODY`."""

    kind: str
    content: Content
    thread_id: str | None
    is_mention: bool
    user_id: str | None
    standing: Standing


@dataclass(frozen=True)
class ChatFacts:
    """A registered chat. `supports_threads` is None where the channel is unknown here."""

    id: str
    is_group: bool
    unknown_sender_policy: str
    denied: bool
    supports_threads: bool | None


@dataclass(frozen=True)
class WiringFacts:
    agent_group_id: str
    session_mode: str
    engage_mode: str
    engage_pattern: str | None
    sender_scope: str
    ignored_message_policy: str


@dataclass(frozen=True)
class Outcome:
    """What the message does at one agent, and in which session. `sticky`: the agent stays in the thread now."""

    agent_group_id: str
    action: Action
    place: SessionPlace
    sticky: bool = False


@dataclass(frozen=True)
class DropNote:
    """The message's row in the drop log."""

    reason: str
    agent_group_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True)
class Routing:
    outcomes: tuple[Outcome, ...] = ()
    drop: DropNote | None = None

    @property
    def routed(self) -> bool:
        """Whether a row is on its way to some session."""
        return any(outcome.action in {Action.WAKE, Action.CONTEXT} for outcome in self.outcomes)


def decide_unwired(chat: ChatFacts | None, *, is_mention: bool) -> Routing:
    """What happens where no agent listens: nothing, but for a note; a mention or direct message shows the chat."""
    if not is_mention:
        return Routing(drop=DropNote(NOT_MENTIONED))
    return Routing(drop=DropNote(CHAT_DENIED if chat is not None and chat.denied else NO_AGENT_WIRED))


def decide_routing(
    message: MessageFacts,
    chat: ChatFacts,
    wirings: Sequence[WiringFacts],
    *,
    thread_engaged: Callable[[SessionPlace], bool],
    matches: Callable[[str, str], bool],
) -> Routing:
    """Where the message goes. `wirings` in the order of their priority; `matches(pattern, text)` runs a pattern.

    `thread_engaged` says whether a session has been addressed in the message's thread before.
    """
    outcomes: list[Outcome] = []
    refusal: DropNote | None = None
    for wiring in wirings:
        group_id = wiring.agent_group_id
        mode = effective_mode(wiring.session_mode, supports_threads=chat.supports_threads, is_group=chat.is_group)
        place = session_place(mode, group_id, chat.id, message.thread_id)
        if _engages(message, chat, wiring, place, thread_engaged, matches):
            access = access_gate(chat.unknown_sender_policy, message.standing, group_id)
            if access.reason is not None and refusal is None:
                refusal = DropNote(access.reason, group_id, message.user_id)
            if access.allowed and scope_gate(wiring.sender_scope, message.standing, group_id).allowed:
                sticky = wiring.engage_mode == "mention-sticky" and chat.is_group and message.thread_id is not None
                outcomes.append(Outcome(group_id, _through_gate(Action.WAKE, message, group_id), place, sticky))
        elif wiring.ignored_message_policy == "accumulate":
            outcomes.append(Outcome(group_id, _through_gate(Action.CONTEXT, message, group_id), place))
    return Routing(tuple(outcomes), refusal or _note(message, outcomes))


def _engages(
    message: MessageFacts,
    chat: ChatFacts,
    wiring: WiringFacts,
    place: SessionPlace,
    thread_engaged: Callable[[SessionPlace], bool],
    matches: Callable[[str, str], bool],
) -> bool:
    # A session that serves more than this thread does not make the thread stick (NanoClaw 2).
    in_thread = message.thread_id is not None and place.thread_id == message.thread_id
    facts = EngageFacts(
        text=message.content.text,
        is_mention=message.is_mention,
        is_group=chat.is_group,
        in_thread=in_thread,
        thread_engaged=in_thread and wiring.engage_mode == "mention-sticky" and thread_engaged(place),
    )
    return engages(wiring.engage_mode, wiring.engage_pattern, facts, matches)


def _through_gate(wanted: Action, message: MessageFacts, agent_group_id: str) -> Action:
    is_admin = message.user_id is not None and may_administer(message.standing, agent_group_id)
    gate = gate_command(message.kind, message.content.command_text, is_admin=is_admin)
    return {CommandGate.PASS: wanted, CommandGate.FILTER: Action.FILTER, CommandGate.REFUSE: Action.REFUSE}[gate]


def _note(message: MessageFacts, outcomes: Sequence[Outcome]) -> DropNote | None:
    actions = {outcome.action for outcome in outcomes}
    if actions & {Action.WAKE, Action.CONTEXT}:
        return None
    if Action.REFUSE in actions:
        reason = COMMAND_REFUSED
    else:
        reason = COMMAND_FILTERED if Action.FILTER in actions else NO_AGENT_ENGAGED
    return DropNote(reason, user_id=message.user_id)
