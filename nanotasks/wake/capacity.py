"""Which agent gives up its place when a host runs as many as it may: the one that has been idle for longest.

Idle means: nothing due, nothing claimed. An agent whose outbound.db cannot be read just now is not called idle.
"""

from __future__ import annotations

from nanotasks.central.hosts import Instance
from nanotasks.clock import now_ms
from nanotasks.errors import NanotasksError
from nanotasks.session.files import heartbeat_ms
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.wake import instances
from nanotasks.wake.bury import folder_of
from nanotasks.wake.here import Here

# Claims are read from files, so only the likeliest are looked at.
LOOKED_AT = 10


def longest_idle(here: Here, except_session: str) -> Instance | None:
    """The instance to stop for another session; None when every agent has something to do."""
    candidates = [one for one in instances.live_on(here.db, here.host_id) if one.session_id != except_session]
    candidates.sort(key=lambda one: max(one.started_at, heartbeat_ms(folder_of(here, one)) or 0))
    return next((one for one in candidates[:LOOKED_AT] if _is_idle(here, one)), None)


def _is_idle(here: Here, instance: Instance) -> bool:
    facts = instances.read(here, instance.session_id)
    if facts is None or facts.is_due(now_ms()):
        return False
    try:
        with open_outbound(folder_of(here, instance), ReadLimits.of(here.settings)) as outbound:
            return not outbound.claims()
    except NanotasksError:
        return False
