"""Under which id this machine is a host: a machine that was renamed is still the one that has the files.

Agent groups live on a host by its id. Where none is set, that is the machine's name, and laptops and containers get
new names. A SQLite database belongs to one machine; so if it knows exactly one host, under another name, this is it.
If it knows several, because the machine ran under its new name meanwhile, the folders of the sessions say which.
"""

from __future__ import annotations

from sqlalchemy import select

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Host
from nanotasks.central.sessions import AgentSession
from nanotasks.settings import Settings, machine_name


def host_id_here(db: Database, settings: Settings) -> str:
    """The id to go by: the configured one, or the one this machine had before it was renamed."""
    if db.dialect != "sqlite" or settings.host_id != machine_name():
        return settings.host_id
    with db.read() as session:
        known = session.scalars(select(Host.id).limit(2)).all()
    if len(known) == 1:
        return known[0]
    homes = _homes(db, settings)
    return homes[0] if len(homes) == 1 else settings.host_id


def _homes(db: Database, settings: Settings) -> list[str]:
    """The hosts whose sessions have their folders in this data directory: one, whatever it is called now."""
    with db.read() as session:
        rows = session.execute(
            select(AgentGroup.host_id, AgentGroup.id, AgentSession.id).join(
                AgentSession, AgentSession.agent_group_id == AgentGroup.id
            )
        ).all()
    folders = settings.data_dir / "sessions"
    return sorted({host for host, group, name in rows if host and (folders / group / name).is_dir()})


def stranded(db: Database, settings: Settings) -> str | None:
    """What to tell when this data directory has the files of agents that live on another host; else None.

    On local storage every host has a directory of its own, so most likely the host id was changed, and nobody
    answers for them.
    """
    if settings.storage == "shared":
        return None
    sessions = settings.data_dir / "sessions"
    with db.read() as session:
        others = session.execute(
            select(AgentGroup.id, AgentGroup.folder, AgentGroup.host_id)
            .where(AgentGroup.host_id != settings.host_id)
            .order_by(AgentGroup.folder)
        ).all()
    here = [row for row in others if (sessions / row.id).is_dir()]
    if not here:
        return None
    folders = ", ".join(row.folder for row in here)
    return (
        f"The agents {folders} of this data directory live on the host {here[0].host_id}, but this is the host"
        f" {settings.host_id}: nobody answers for them. Set NANOTASKS_HOST_ID={here[0].host_id} to go on as that host."
    )
