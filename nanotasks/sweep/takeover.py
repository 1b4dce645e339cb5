"""Takes over the agent groups of hosts that are gone, where others have the same files (`agents.moving`)."""

from __future__ import annotations

from sqlalchemy import select

from nanotasks import faults, logs
from nanotasks.agents.moving import Moved, is_gone, lock_host, move_all
from nanotasks.central import Database
from nanotasks.central.hosts import Host
from nanotasks.settings import Settings

_log = logs.get("sweep")


def take_over(db: Database, settings: Settings) -> list[Moved]:
    """Move the agent groups of hosts that are gone to others with the same files, as many as one sweep may."""
    with db.read() as session:
        now = db.now_ms(session)
        silent = select(Host).where(Host.silent_at.is_not(None), Host.volume.is_not(None)).order_by(Host.id)
        gone = [host.id for host in session.scalars(silent) if is_gone(host, now, settings)]
    found: list[Moved] = []
    for host_id in gone:
        with db.write() as session:
            host = lock_host(session, host_id)
            # It may have come back since it was found.
            if host is not None and is_gone(host, db.now_ms(session), settings):
                left = settings.sweep_batch - len(found)
                found += move_all(session, host, "its host is gone", fenced=True, limit=left)
    if found:
        faults.point("move.after_commit")
    for one in found:
        _log.warning("group_taken_over", agent_group=one.agent_group_id, from_host=one.from_host, host=one.to_host)
    return found
