"""What an agent is told about its surroundings: the names it may address, and where its plain answers go.

The central database is the truth; inbound.db holds a copy that is replaced as a whole, at every start and, while
the agent runs, after every change. The copy is read from the central database while inbound.db is locked, so that of
two projections the later one never writes the older state.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from nanotasks.central import Database
from nanotasks.central.chats import Chat
from nanotasks.central.destinations import Destination
from nanotasks.central.groups import AgentGroup
from nanotasks.central.hosts import Instance
from nanotasks.central.sessions import AgentSession
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import Destination as AgentDestination
from nanotasks.session.rows import DestinationType
from nanotasks.settings import Settings


def project(db: Database, inbound: Inbound, session_id: str) -> None:
    """Bring a session's destinations and its routing up to date in its inbound.db, in one commit."""
    with inbound.transaction():
        with db.read() as session:
            found = session.get_one(AgentSession, session_id)
            destinations = destinations_of(session, found.agent_group_id)
            routing = routing_of(session, found)
        inbound.replace_destinations(destinations)
        inbound.set_session_routing(*routing)


def project_group(db: Database, settings: Settings, agent_group_id: str) -> list[str]:
    """Project into every session of an agent group whose agent runs on this host; the ids of those sessions.

    A session that sleeps is projected before its agent starts. The row of a start is committed before that, so an
    agent that is being started meanwhile is either found here or reads what was committed before.
    """
    awake = select(Instance.session_id).where(
        Instance.agent_group_id == agent_group_id,
        Instance.host_id == settings.host_id,
        Instance.ended_at.is_(None),
    )
    with db.read() as session:
        ids = session.scalars(awake.order_by(Instance.session_id)).all()
    done = []
    for session_id in ids:
        folder = SessionFolder.of(settings.files_dir, agent_group_id, session_id)
        if folder.inbound_db.is_file():
            with open_inbound(folder) as inbound:
                project(db, inbound, session_id)
            done.append(session_id)
    return done


def destinations_of(session: Session, agent_group_id: str) -> list[AgentDestination]:
    """The agent group's destinations whose targets exist, by name; two queries, however many there are."""
    agents = (
        select(Destination.local_name, AgentGroup.name, AgentGroup.id)
        .join(AgentGroup, AgentGroup.id == Destination.target_id)
        .where(Destination.agent_group_id == agent_group_id, Destination.target_type == "agent")
    )
    chats = (
        select(Destination.local_name, Chat.name, Chat.channel_type, Chat.platform_id)
        .join(Chat, Chat.id == Destination.target_id)
        .where(Destination.agent_group_id == agent_group_id, Destination.target_type != "agent")
    )
    found = [
        AgentDestination(name, DestinationType.AGENT, display_name=shown, agent_group_id=target)
        for name, shown, target in session.execute(agents)
    ]
    found += [
        AgentDestination(name, DestinationType.CHANNEL, shown or name, channel_type, platform_id)
        for name, shown, channel_type, platform_id in session.execute(chats)
    ]
    return sorted(found, key=lambda destination: destination.name)


def routing_of(session: Session, agent_session: AgentSession) -> tuple[str | None, str | None, str | None]:
    """Channel, place and thread of a session's chat; all None for a session without one."""
    chat = session.get(Chat, agent_session.messaging_group_id) if agent_session.messaging_group_id else None
    return (chat.channel_type, chat.platform_id, agent_session.thread_id) if chat else (None, None, None)
