"""Agent groups and their container configuration."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from nanotasks.central.base import Base, Id, Millis, one_of
from nanotasks.domain.vocabulary import CLI_SCOPES


class AgentGroup(Base):
    """One agent: workspace folder, personality, configuration. Lives on one host at a time."""

    __tablename__ = "agent_groups"

    id: Mapped[Id]
    name: Mapped[str]
    folder: Mapped[str] = mapped_column(String, unique=True)
    agent_provider: Mapped[str | None]
    created_at: Mapped[Millis]
    host_id: Mapped[str | None] = mapped_column(ForeignKey("hosts.id"), index=True)
    epoch: Mapped[int] = mapped_column(default=0, server_default="0")
    timezone: Mapped[str | None]


class ContainerConfig(Base):
    """What an agent group's container is started with; the file `container.json` is made from it at each start."""

    __tablename__ = "container_configs"
    __table_args__ = (one_of("cli_scope", *CLI_SCOPES),)

    agent_group_id: Mapped[str] = mapped_column(ForeignKey("agent_groups.id", ondelete="CASCADE"), primary_key=True)
    provider: Mapped[str | None]
    model: Mapped[str | None]
    effort: Mapped[str | None]
    image_tag: Mapped[str | None]
    assistant_name: Mapped[str | None]
    max_messages_per_prompt: Mapped[int | None]
    skills: Mapped[str] = mapped_column(default='"all"', server_default='"all"')
    mcp_servers: Mapped[str] = mapped_column(default="{}", server_default="{}")
    packages_apt: Mapped[str] = mapped_column(default="[]", server_default="[]")
    packages_npm: Mapped[str] = mapped_column(default="[]", server_default="[]")
    additional_mounts: Mapped[str] = mapped_column(default="[]", server_default="[]")
    cli_scope: Mapped[str] = mapped_column(default="group", server_default="group")
    updated_at: Mapped[Millis]
