"""System actions: what an agent asks of the host by a row of kind `system`, by the name in `content.action`.

A handler may run again for the same delivery, when its process died before the outcome was recorded; so it must
use `delivery_id` as its key. It raises a `SendError`: a `PermanentError` ends the request and tells the agent why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nanotasks.central.engine import Database
from nanotasks.channels.contract import PermanentError
from nanotasks.deliver.facts import SessionFacts, Signals
from nanotasks.errors import ConflictError
from nanotasks.settings import Settings


@dataclass(frozen=True)
class Request:
    """One action of one agent. `in_reply_to` is the inbound row it was at work on, where the runner says so.

    What a handler leaves to be rung, it rings by `signals` once its transactions are committed.
    """

    delivery_id: str
    message_out_id: str
    in_reply_to: str | None
    content: Mapping[str, Any]
    session: SessionFacts
    signals: Signals


Handler = Callable[[Database, Settings, Request], None]
_handlers: dict[str, Handler] = {}


def register_action(name: str, handler: Handler) -> None:
    """Let agents ask for an action. Raises `ConflictError` when the name is taken."""
    if name in _handlers:
        raise ConflictError(f"The action {name} is registered already.")
    _handlers[name] = handler


def perform(db: Database, settings: Settings, request: Request) -> None:
    """Carry out one action. Raises `PermanentError` for one that this installation does not offer."""
    name = request.content.get("action")
    handler = _handlers.get(name) if isinstance(name, str) else None
    if handler is None:
        raise PermanentError(f"The action {name!r} is not available here.")
    handler(db, settings, request)
