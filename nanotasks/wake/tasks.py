"""The wake, as a task of the host that owns the session."""

from __future__ import annotations

from nanotasks import signals
from nanotasks.celery_app import app
from nanotasks.settings import settings
from nanotasks.wake import service
from nanotasks.wake.here import State
from nanotasks.wake.local import this_host


@app.task(name="wake.session")
def wake_session(session_id: str, *_later: object) -> None:
    """Make what runs for a session agree with what is due for it."""
    signals.answered("wake", session_id)
    here = this_host(settings())
    outcome = service.wake(here, session_id)
    if outcome.state is State.STARTED:
        # The watcher of this host has a new folder to watch.
        signals.poke(f"instances:{here.host_id}", {"session": session_id})
    for kind, *ids in outcome.rings:
        signals.ring(kind, *ids)
