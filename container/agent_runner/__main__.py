"""`python3 -m agent_runner`: serve one session until SIGTERM. See `paths` and `log` for the environment.

Exit codes: 0 stopped, 1 failed (the reason is the last line of the log), 75 the host's lease is lost, 78 the
configuration names an unknown provider.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from typing import Any

from agent_runner import config, host_lease, log, providers, tools
from agent_runner.loop import Runner
from agent_runner.paths import Workspace
from agent_runner.providers.contract import ProviderOptions

_EX_CONFIG = 78


def main() -> int:
    host_lease.watch()
    workspace = Workspace.from_environment(os.environ)
    settings = config.load(workspace.config)
    try:
        os.chdir(workspace.agent_dir)
    except OSError as error:
        log.warning("no_agent_folder", path=workspace.agent_dir, error=error)
    options = ProviderOptions(
        assistant_name=settings.assistant_name,
        mcp_servers={"nanoclaw": tool_server(workspace), **settings.mcp_servers},
        environment=dict(os.environ),
        additional_directories=workspace.additional_directories(),
        model=settings.model,
        effort=settings.effort,
        call_tool=functools.partial(tools.call, workspace),
    )
    try:
        provider = providers.create(settings.provider, options)
    except providers.UnknownProviderError as error:
        log.error("unknown_provider", error=error, fix="change the provider of the agent group")
        return _EX_CONFIG
    try:
        runner = Runner(workspace, settings, provider)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: runner.stop())
        runner.run()
    except Exception as error:
        import traceback

        log.debug("traceback", text=traceback.format_exc())
        log.error("failed", error=repr(error))
        return 1
    return 0


def tool_server(workspace: Workspace) -> dict[str, Any]:
    """How a provider starts our tools as an MCP server."""
    package_dir = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {
        "PYTHONPATH": package_dir,
        "NANOTASKS_WORKSPACE": workspace.root,
        "NANOTASKS_AGENT_DIR": workspace.agent_dir,
        **host_lease.environment(os.environ),
    }
    return {"command": sys.executable, "args": ["-m", "agent_runner.tools"], "env": environment}


if __name__ == "__main__":
    sys.exit(main())
