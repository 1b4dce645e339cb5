"""The demo agent: deterministic, offline, and in need of everything a real model needs.

It reads its prompt as a model would, answers every message that asks for an answer to the place it came from, in the
format of `output`, and does on request what models do: several messages, other destinations, silence, slowness,
tools, files, failure, a crash (see `commands.HELP`). It never answers the runner's host, or the standard answer of
another demo agent, so that two of them cannot keep each other busy.
"""

from agent_runner.providers.demo.query import DemoProvider

__all__ = ["DemoProvider"]
