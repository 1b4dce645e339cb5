"""Delivery, as tasks of the host that owns the session.

The first attempts of a session are made by `deliver.session`. Each later attempt is a `deliver.attempt` with the
delivery's id as its task id and a growing count of retries, and says how it ended in Celery's own words, so that
Flower shows one line per delivery: RETRY with the reason while attempts follow, FAILURE when it was given up,
SUCCESS when it arrived. The exceptions are for Flower alone. `Retry` is raised without `self.retry()`: that would
publish a countdown, and what is due stands in the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from celery.exceptions import Ignore, Retry
from celery.worker.request import Request

from nanotasks import signals
from nanotasks.celery_app import app
from nanotasks.central import database
from nanotasks.clock import iso, now_ms
from nanotasks.deliver import service
from nanotasks.errors import NanotasksError
from nanotasks.settings import settings


class DeliveryFailedError(NanotasksError):
    """An attempt failed."""


class DeliveryDeadError(NanotasksError):
    """A delivery was given up."""


@app.task(name="deliver.session", bind=True)
def deliver_session(self: Any, session_id: str, *_later: object) -> None:
    """Deliver what a session's agent wrote, as far as that is possible now, and the same for all that rang since."""
    config = settings()

    def deliver(one: str, _host_id: str) -> None:
        drained = service.deliver_session(database(config), config, one, task_id=self.request.id)
        for kind, *ids in drained.signals:
            signals.ring(kind, *ids)

    signals.answer(deliver, "deliver", session_id, config.host_id, task_id=self.request.id)


class AttemptRequest(Request):
    """Celery revokes the id of a message that expired, for three hours; but the next attempt has the same id."""

    def maybe_expire(self) -> Literal[True] | None:
        """Whether the message is too old. Nothing is remembered of it."""
        return True if self.expires and datetime.now(self.expires.tzinfo) > self.expires else None


@app.task(name="deliver.attempt", bind=True, Request=AttemptRequest)
def deliver_attempt(self: Any, delivery_id: str, number: int, *_later: object) -> None:
    """Make one later attempt of a delivery."""
    signals.answered("attempt", delivery_id)
    config = settings()
    made = service.attempt(database(config), config, delivery_id, number, task_id=self.request.id)
    for kind, *ids in made.signals:
        signals.ring(kind, *ids)
    reason = f"{made.error_class}: {made.error_text}"
    if made.next_attempt_ms is not None and (made.made or made.next_attempt_ms > now_ms()):
        # It failed, or it failed before and is not due yet.
        raise Retry(f"again at {iso(made.next_attempt_ms)}", exc=DeliveryFailedError(reason))
    if not made.made:
        # Somebody else made it: nothing happened that Flower should show on this line.
        raise Ignore
    if made.state == "sending":
        raise Retry("the send goes on in the background")
    if made.state in {"dead", "held"}:
        raise DeliveryDeadError(f"{made.state}: {reason}")
