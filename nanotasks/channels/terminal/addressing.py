"""Who is meant by what is said in a terminal.

The chat `local`, and every chat that is not a group, is a direct message: the agent is always meant. In a group
chat it is meant when the text names it: `@` and the name or folder of an agent group, or an assistant's name, in
any case, as a whole word. (A terminal has no platform that could confirm a mention, so the gateway looks.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from nanotasks.central.chats import Chat
from nanotasks.central.groups import AgentGroup, ContainerConfig


def names_somebody(text: str, names: Iterable[str]) -> bool:
    """Whether `text` contains `@name` for one of the names."""
    if "@" not in text:
        return False
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True) if name)
    return bool(alternatives) and bool(re.search(rf"(?<!\w)@(?:{alternatives})(?!\w)", text, re.IGNORECASE))


def agent_names(session: Session, assistant_name: str) -> set[str]:
    """What agents are called here."""
    found = session.scalars(
        union(select(AgentGroup.name), select(AgentGroup.folder), select(ContainerConfig.assistant_name))
    )
    return {name for name in found if name} | {assistant_name}


def is_group_chat(session: Session, channel_type: str, platform_id: str) -> bool:
    """Whether the chat is registered as a group."""
    return bool(
        session.scalar(select(Chat.is_group).where(Chat.channel_type == channel_type, Chat.platform_id == platform_id))
    )
