"""`python3 -m agent_runner.tools`: the tool server of one session, started by a provider."""

from __future__ import annotations

import io
import os
import sys

from agent_runner.paths import Workspace
from agent_runner.tools.server import serve

if __name__ == "__main__":
    requests = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace")
    serve(Workspace.from_environment(os.environ), requests, sys.stdout)
