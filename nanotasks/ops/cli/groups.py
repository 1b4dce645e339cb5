"""`nanotasks groups`: agent groups and their configuration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanotasks.domain.vocabulary import CLI_SCOPES
from nanotasks.ops.cli.arguments import Cascade, GroupRef, choice, given, json_option, number_option, require_some
from nanotasks.ops.cli.central import after_deleted_sessions, after_destinations, after_moves, reading, writing
from nanotasks.ops.cli.output import show_list, show_one, show_result
from nanotasks.ops.cli.root import App

if TYPE_CHECKING:
    from nanotasks.central.groups import AgentGroup, ContainerConfig

app = App(help="Agent groups. One is one agent: a workspace folder, a personality, a configuration.")
COLUMNS = ("folder", "name", "provider", "host", "id", "created_at")
NULLABLE = (
    "provider",
    "model",
    "effort",
    "image_tag",
    "assistant_name",
    "max_messages_per_prompt",
    "host_id",
    "timezone",
)

Provider = Annotated[str | None, typer.Option("--provider", metavar="NAME", help="Who thinks; none: the setting.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="Model of the provider, or none.")]
Effort = Annotated[str | None, typer.Option("--effort", metavar="WORD", help="Effort of the model, or none.")]
ImageTag = Annotated[str | None, typer.Option("--image-tag", metavar="IMAGE", help="Another agent image, or none.")]
AssistantName = Annotated[
    str | None, typer.Option("--assistant-name", metavar="NAME", help="What the agent calls itself; none: its name.")
]
PerPrompt = Annotated[Any, number_option("--max-messages-per-prompt", "N", "Messages of one prompt, or none.")]
CliScope = Annotated[str | None, choice("--cli-scope", CLI_SCOPES, "What the agent may do with this command line.")]
Skills = Annotated[Any, json_option("--skills", '["weather"]', '"all" or a list of skills')]
McpServers = Annotated[Any, json_option("--mcp-servers", '{"clock": {"command": "mcp-clock"}}', "MCP servers by name")]
Apt = Annotated[Any, json_option("--packages-apt", '["jq"]', "Debian packages of its image")]
Npm = Annotated[Any, json_option("--packages-npm", '["cowsay"]', "npm packages of its image")]
Mounts = Annotated[
    Any, json_option("--additional-mounts", '[{"hostPath": "/srv/photos"}]', "Folders of the host that it sees")
]
HostId = Annotated[
    str | None, typer.Option("--host", metavar="HOST", help="The host it lives on; none: the first that needs it.")
]

Zone = Annotated[
    str | None,
    typer.Option("--timezone", metavar="ZONE", help="IANA zone of its prompts and schedules, where a user has none."),
]


def register(root: typer.Typer) -> None:
    """Add `groups` to the command line."""
    root.add_typer(app, name="groups")


@app.command("list")
def list_groups() -> None:
    """List the agent groups."""
    from sqlalchemy import select

    from nanotasks.central.groups import AgentGroup, ContainerConfig

    with reading() as session:
        query = select(AgentGroup, ContainerConfig).outerjoin(
            ContainerConfig, ContainerConfig.agent_group_id == AgentGroup.id
        )
        rows = [view(group, config) for group, config in session.execute(query.order_by(AgentGroup.folder))]
    show_list(rows, COLUMNS, empty="There are no agent groups. Make one with `nanotasks groups create NAME`.")


@app.command("show")
def show_group(group: GroupRef) -> None:
    """Show one agent group with its configuration."""
    from nanotasks.central.groups import ContainerConfig
    from nanotasks.ops import references

    with reading() as session:
        found = references.group(session, group)
        row = view(found, session.get(ContainerConfig, found.id))
    show_one(row)


@app.command("create")
def create_group(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="WORD", help="Its workspace folder; made from the name if not given."),
    ] = None,
    provider: Provider = None,
    model: Model = None,
    effort: Effort = None,
    image_tag: ImageTag = None,
    assistant_name: AssistantName = None,
    max_messages_per_prompt: PerPrompt = None,
    cli_scope: CliScope = None,
    skills: Skills = None,
    mcp_servers: McpServers = None,
    packages_apt: Apt = None,
    packages_npm: Npm = None,
    additional_mounts: Mounts = None,
    host: HostId = None,
    timezone: Zone = None,
) -> None:
    """Make an agent group. Wire it to a chat next: `nanotasks wirings create CHAT GROUP`."""
    from nanotasks.agents.groups import create_group as create
    from nanotasks.agents.groups import group_config
    from nanotasks.domain.names import normalize_name

    config = _config(locals())
    with writing() as tx:
        group = create(tx.session, name, folder=folder, host_id=host, timezone=timezone, config=config)
        tx.audit("groups.create", group.id, {"name": group.name, "folder": group.folder, **config})
        row = view(group, group_config(tx.session, group))
    wanted = normalize_name(name)
    taken = f" The folder {wanted} was taken." if folder is None and row["folder"] != wanted else ""
    show_result(row, "id", f"Made the agent group {row['folder']}.{taken}")


@app.command("update")
def update_group(
    group: GroupRef,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")] = None,
    provider: Provider = None,
    model: Model = None,
    effort: Effort = None,
    image_tag: ImageTag = None,
    assistant_name: AssistantName = None,
    max_messages_per_prompt: PerPrompt = None,
    cli_scope: CliScope = None,
    skills: Skills = None,
    mcp_servers: McpServers = None,
    packages_apt: Apt = None,
    packages_npm: Npm = None,
    additional_mounts: Mounts = None,
    host: HostId = None,
    timezone: Zone = None,
) -> None:
    """Change an agent group. A running agent sees its new configuration when it is started next.

    The word none empties a field. The folder stays, since the agent's files are below it.
    """
    from nanotasks.agents.groups import change_config, change_group, group_config
    from nanotasks.ops import references

    config = _config(locals())
    changes = given({"name": name, "host_id": host, "timezone": timezone}, NULLABLE)
    require_some(config | changes, "--name Andy or --model none")
    with writing() as tx:
        found = references.group(tx.session, group)
        moved = change_group(tx.session, found, changes)
        if config:
            change_config(tx.session, found, config)
        tx.audit("groups.update", found.id, config | changes)
        row = view(found, group_config(tx.session, found))
    after_moves([moved] if moved else [])
    show_result(row, "id", f"Changed the agent group {row['folder']}.")


@app.command("delete")
def delete_group(group: GroupRef, cascade: Cascade = False) -> None:
    """Delete an agent group. Its workspace folder stays; with --cascade its sessions and their folders go."""
    from nanotasks.agents.destinations import groups_that_reach
    from nanotasks.agents.groups import delete_group as delete
    from nanotasks.ops import references

    with writing() as tx:
        found = references.group(tx.session, group)
        groups = [other for other in groups_that_reach(tx.session, "agent", found.id) if other != found.id]
        sessions = delete(tx.session, found, cascade=cascade)
        tx.audit("groups.delete", found.id, {"folder": found.folder, "sessions": [one.id for one in sessions]})
    after_deleted_sessions(sessions)
    after_destinations(groups)
    show_result({"deleted": found.id}, "deleted", f"Deleted the agent group {found.folder}.")


def view(group: AgentGroup, config: ContainerConfig | None) -> dict[str, Any]:
    """An agent group as it is printed."""
    from nanotasks.domain.group_config import FIELDS, JSON_FIELDS

    fields = {}
    for name in FIELDS if config is not None else ():
        value = getattr(config, name)
        fields[name] = json.loads(value) if name in JSON_FIELDS else value
    return {
        "id": group.id,
        "name": group.name,
        "folder": group.folder,
        "provider": fields.get("provider"),
        "host": group.host_id,
        "timezone": group.timezone,
        "epoch": group.epoch,
        "created_at": group.created_at,
        "config": fields,
    }


def _config(options: dict[str, Any]) -> dict[str, Any]:
    from nanotasks.domain.group_config import FIELDS

    return given({name: options[name] for name in FIELDS}, NULLABLE)
