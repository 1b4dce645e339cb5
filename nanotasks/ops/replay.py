"""`nanotasks intake replay`: the messages of a file, into the intake log of this installation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nanotasks import signals
from nanotasks.central import Database, database
from nanotasks.channels.contract import Accepted, InboundMessage
from nanotasks.channels.file.replay import Outcome, Problem, Replay, Replayed
from nanotasks.errors import NanotasksError
from nanotasks.intake.accept import accept_all
from nanotasks.intake.prepared import Prepared, prepare
from nanotasks.settings import Settings

_FLUSH_S = 10.0


def replay_file(
    settings: Settings,
    path: Path,
    *,
    on_problem: Problem = lambda _line, _error: None,
    on_progress: Callable[[Replayed], None] = lambda _report: None,
    patience_s: float = 60.0,
) -> Replayed:
    """Accept every message of a JSONL file; no gateway is needed.

    `on_problem(line number, error)` is called for each line that cannot be used, `on_progress(report)` after each
    commit. Raises `OSError` for a file that cannot be read, `DependencyDownError` when the database does not
    answer, and `TooManyError` when a chat stays full for `patience_s` seconds.
    """

    # Without Redis the sweeps find what was accepted; nobody need wait here for signals that cannot leave.
    signalling = signals.redis_ok()

    def accept_many(messages: Sequence[InboundMessage]) -> list[Outcome]:
        outcomes = _accept(database(settings), messages, settings.max_pending_per_chat)
        chats = {
            (message.address.channel_type, message.address.platform_id)
            for message, outcome in zip(messages, outcomes, strict=True)
            if signalling and isinstance(outcome, Accepted)
        }
        for chat in chats:
            signals.ring("route", *chat)
        return outcomes

    replay = Replay(
        accept_many,
        max_line_bytes=settings.max_body_kb * 1024,
        on_problem=on_problem,
        on_progress=on_progress,
        patience_s=patience_s,
    )
    try:
        with path.open("rb") as source:
            return replay.run(source)
    finally:
        if signalling:
            signals.flush(_FLUSH_S)


def _accept(central: Database, messages: Sequence[InboundMessage], max_pending: int) -> list[Outcome]:
    prepared = [_prepared(message) for message in messages]
    storable = [one for one in prepared if isinstance(one, Prepared)]
    stored = iter(accept_all(central, storable, max_pending=max_pending))
    return [next(stored) if isinstance(one, Prepared) else one for one in prepared]


def _prepared(message: InboundMessage) -> Prepared | NanotasksError:
    try:
        return prepare(message)
    except NanotasksError as error:
        return error
