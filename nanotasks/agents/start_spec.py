"""Everything one start of an agent needs: its folders made and composed, its mounts, environment and limits.

    host                                      in a container                     for a child process
    <session>/workspace                       /workspace              rw         NANOTASKS_WORKSPACE
    <session>/host                            /host                              (the workspace's links lead there)
    groups/<folder>                           /workspace/agent        rw         NANOTASKS_AGENT_DIR, working directory
    <session>/host/container.json             /workspace/agent/container.json    NANOTASKS_CONTAINER_CONFIG
    groups/<folder>/CLAUDE.md                 /workspace/agent/CLAUDE.md
    groups/<folder>/.claude-fragments         /workspace/agent/.claude-fragments
    container/CLAUDE.md                       /app/CLAUDE.md                     links
    container                                 /app/src                           PYTHONPATH
    container/skills                          /app/skills                        links
    sessions/<agent group>/.claude-shared     /home/node/.claude      rw         HOME/.claude is a link
    <data>/run/lease, on shared storage       /run/nanotasks                     NANOTASKS_LEASE_FILE
    validated additional mounts               /workspace/extra/<x>    as allowed links in <workspace>/extra

Nothing secret is in any of it. Mounts within mounts need something to be mounted on: the host makes that, in place
of whatever the agent put there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from nanotasks import faults
from nanotasks.agents import container_config, instructions, safe_files, workspace
from nanotasks.agents.groups import group_config
from nanotasks.assets import asset
from nanotasks.central.groups import AgentGroup, ContainerConfig
from nanotasks.central.sessions import AgentSession
from nanotasks.runtimes import host_lease
from nanotasks.runtimes.contract import Limits, Mount, StartSpec
from nanotasks.runtimes.hardening import HOME
from nanotasks.runtimes.image import CODE_TARGET, image_name
from nanotasks.schedule.zones import zone_of
from nanotasks.session import directories
from nanotasks.session.layout import SessionFolder
from nanotasks.settings import Settings

WORKSPACE = "/workspace"
AGENT = "/workspace/agent"
EXTRA = "/workspace/extra"
SKILLS = "/app/skills"
SHARED_INSTRUCTIONS = "/app/CLAUDE.md"


@dataclass(frozen=True)
class StartFacts:
    """The rows that a start depends on, as they were when it began."""

    agent_session: AgentSession
    group: AgentGroup
    config: ContainerConfig
    zone: str


def read_facts(session: Session, settings: Settings, session_id: str) -> StartFacts:
    """The rows of a session that is there; a configuration that is missing is made with defaults."""
    agent_session = session.get_one(AgentSession, session_id)
    group = session.get_one(AgentGroup, agent_session.agent_group_id)
    zone = zone_of(session, settings, agent_session)
    return StartFacts(agent_session, group, group_config(session, group), zone)


def prepare(
    facts: StartFacts,
    settings: Settings,
    runtime_name: str,
    instance_id: str,
    epoch: int,
    extra: Sequence[Mount] = (),
    began: int | None = None,
) -> StartSpec:
    """Write what the agent reads when it starts, and say how to start it.

    `extra` are validated mounts with targets below `/workspace/extra`; `began` is when the start was decided, on shared
    storage (`runtimes.host_lease`). Raises `ConfigError` for a damaged configuration, `HostileFileError` where the
    agent replaced one of its folders.
    """
    container = asset("container")
    group, files_dir = facts.group, settings.files_dir
    in_docker = runtime_name == "docker"
    content = container_config.document(group, facts.config, facts.agent_session, settings)
    folder = SessionFolder.of(files_dir, group.id, facts.agent_session.id)
    agent_folder = workspace.group_folder(files_dir, group.folder)
    state = workspace.claude_folder(files_dir, group.id)

    workspace.init_group(files_dir, group.folder, group.id)
    config_file = container_config.write(folder.host, content)
    parts = instructions.fragments(container, content["mcpServers"], facts.config.cli_scope)
    shared = SHARED_INSTRUCTIONS if in_docker else str(container / "CLAUDE.md")
    # What is mounted comes from the host's folder: the agent's other sessions can change their own at any moment,
    # and a link that they put there would be followed by the daemon.
    instructions.compose(folder.host if in_docker else agent_folder, parts, shared)
    available = {path.name for path in (container / "skills").iterdir() if path.is_dir()}
    skills = workspace.chosen_skills(content["skills"], available)
    workspace.link_skills(state, skills, SKILLS if in_docker else str(container / "skills"))

    if in_docker:
        workspace.prepare_mount_points(
            agent_folder, folders=[instructions.FRAGMENTS], files=[container_config.NAME, "CLAUDE.md"]
        )
        instructions.link_shared(agent_folder, shared)
        workspace.prepare_mount_points(folder.workspace, folders=["agent", *(["extra"] if extra else [])])
        mounts = (*_mounts(folder, agent_folder, config_file, state, container), *extra)
        if began is not None:
            mounts = (*mounts, Mount(host_lease.folder(settings), host_lease.TARGET))
        environment = _paths_in_container()
    else:
        mounts = ()
        environment = _paths_on_host(folder, agent_folder, config_file, state, container)
        _link_extra(folder.workspace, extra)
    return StartSpec(
        session_id=facts.agent_session.id,
        agent_group_id=group.id,
        instance_id=instance_id,
        epoch=epoch,
        image=facts.config.image_tag or image_name(settings),
        limits=limits(settings),
        working_dir=AGENT if in_docker else str(agent_folder),
        network=settings.container_network,
        mounts=mounts,
        environment={
            "TZ": facts.zone,
            **environment,
            **_lease(settings, began, in_docker=in_docker),
            **_logging(settings, folder),
            **faults.environment_of_agents(),
        },
    )


def _lease(settings: Settings, began: int | None, *, in_docker: bool) -> dict[str, str]:
    """On shared storage: how long the agent may go on."""
    if began is None:
        return {}
    folder = Path(host_lease.TARGET) if in_docker else host_lease.folder(settings)
    return host_lease.environment(settings, began, str(folder / host_lease.NAME))


def _logging(settings: Settings, folder: SessionFolder) -> dict[str, str]:
    """How the agent logs: as little or as much as its host, and in the form of its host where that was chosen."""
    form = {"NANOTASKS_LOG_FORMAT": "json"} if settings.log_format == "json" else {}
    return {"NANOTASKS_LOG_LEVEL": settings.log_level, "NANOTASKS_SESSION_ID": folder.root.name, **form}


def limits(settings: Settings) -> Limits:
    """The limits of one agent."""
    return Limits(
        memory_mb=settings.container_memory_mb,
        cpus=settings.container_cpus,
        pids=settings.container_pids,
        nofile=settings.container_nofile,
        log_kb=settings.agent_log_max_kb,
    )


def _mounts(folder: SessionFolder, agent: Path, config: Path, state: Path, container: Path) -> tuple[Mount, ...]:
    return (
        Mount(folder.workspace, WORKSPACE, read_only=False, owned=True),
        Mount(folder.host, "/host"),
        Mount(agent, AGENT, read_only=False, owned=True),
        Mount(config, f"{AGENT}/{container_config.NAME}"),
        Mount(folder.host / "CLAUDE.md", f"{AGENT}/CLAUDE.md"),
        Mount(folder.host / instructions.FRAGMENTS, f"{AGENT}/{instructions.FRAGMENTS}"),
        Mount(container / "CLAUDE.md", SHARED_INSTRUCTIONS),
        Mount(container, CODE_TARGET),
        Mount(container / "skills", SKILLS),
        Mount(state, f"{HOME}/.claude", read_only=False, owned=True),
    )


def _paths_in_container() -> dict[str, str]:
    return {
        "NANOTASKS_WORKSPACE": WORKSPACE,
        "NANOTASKS_AGENT_DIR": AGENT,
        "NANOTASKS_CONTAINER_CONFIG": f"{AGENT}/{container_config.NAME}",
        "PYTHONPATH": CODE_TARGET,
        "HOME": HOME,
        "LANG": "C.UTF-8",
    }


def _paths_on_host(folder: SessionFolder, agent: Path, config: Path, state: Path, container: Path) -> dict[str, str]:
    return {
        "NANOTASKS_WORKSPACE": str(folder.workspace),
        "NANOTASKS_AGENT_DIR": str(agent),
        "NANOTASKS_CONTAINER_CONFIG": str(config),
        "PYTHONPATH": str(container),
        "HOME": str(workspace.make_home(state)),
    }


def _link_extra(folder: Path, extra: Sequence[Mount]) -> None:
    """Without mounts the folders are only shown to the agent: nothing keeps it from writing there."""
    wanted = {mount.target.removeprefix(f"{EXTRA}/").replace("/", "-"): str(mount.source) for mount in extra}
    with directories.opened(folder) as opened:
        if wanted or directories.entry(opened, "extra") is not None:
            safe_files.links(opened, "extra", wanted)
