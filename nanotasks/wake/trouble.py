"""Starts that fail: the next one is put off, longer each time, and those who wait for an answer are told, once.

A failure is counted until an agent is proved to live. From `wake_failures_told` on every chat that
waits is told that its message is kept; that is a message of the host, so it goes out although the agent's own
files cannot be read. The reason is the operator's, and stands on the session (`nanotasks sessions show`).
"""

from __future__ import annotations

import random

from nanotasks import logs
from nanotasks.central.changes import changed
from nanotasks.central.sessions import AgentSession
from nanotasks.clock import now_ms
from nanotasks.deliver.kept import tell_waiting
from nanotasks.domain.backoff import jittered
from nanotasks.signals import task_at_work
from nanotasks.wake.here import Here, Signal

log = logs.get(__name__)

KEPT = (
    "Your message is kept, but the assistant cannot be started at the moment. It will be tried again; if this lasts, "
    "the operator has to look into it."
)


def start_failed(here: Here, session_id: str, error: str) -> list[Signal]:
    """Put the next start off and show why on the session; what to ring where somebody was told of it."""
    config = here.settings
    with here.db.write() as session:
        found = session.get_one(AgentSession, session_id, with_for_update=True)
        found.wake_failures += 1
        found.wake_retry_at = now_ms() + jittered(
            found.wake_failures,
            round(config.wake_backoff_s * 1000),
            round(config.wake_backoff_max_s * 1000),
            random.random(),
        )
        found.wake_error = error
        log.warning(
            "start_put_off",
            session=session_id,
            error=error,
            failures=found.wake_failures,
            retry_at=found.wake_retry_at,
        )
        detail = {
            "group": found.agent_group_id,
            "tries": found.wake_failures,
            "next_attempt_at": found.wake_retry_at,
            "error": error,
            "worker": str(here.owner),
            "task": task_at_work(),
        }
        changed(session, "wake.failed", session_id, detail)
        told = found.wake_failures >= config.wake_failures_told and tell_waiting(
            session, session_id, KEPT, states=("pending", "appended")
        )
    return [("deliver", session_id, here.host_id)] if told else []
