"""This host, as the wake service sees it: its databases, its settings and its runtimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

from nanotasks.central import Database, database
from nanotasks.owners import Owner, this_owner
from nanotasks.runtimes.contract import Runtime
from nanotasks.runtimes.select import runtime, runtime_named
from nanotasks.settings import Settings

# The arguments of `signals.ring`: a kind and its ids.
Signal: TypeAlias = tuple[str, Any, *tuple[Any, ...]]


@dataclass(frozen=True)
class Here:
    """`runtime` is where new agents start; `named` also finds those that were started under another setting."""

    db: Database
    settings: Settings
    runtime: Runtime
    named: Callable[[str], Runtime]

    @property
    def host_id(self) -> str:
        return self.settings.host_id

    @property
    def owner(self) -> Owner:
        return this_owner(self.host_id)


def this_host(settings: Settings) -> Here:
    """This process's view of its host."""
    return Here(database(settings), settings, runtime(settings), lambda name: runtime_named(name, settings))


class State(StrEnum):
    """What a look at a session ended with."""

    RUNNING = "running"
    STARTED = "started"
    IDLE = "idle"
    BUSY = "busy"
    WAITING = "waiting"
    LATER = "later"
    FAILED = "failed"
    STOPPED = "stopped"
    NOT_HERE = "not-here"


@dataclass
class Outcome:
    """The state of the session, and what is to be rung once everything is committed."""

    state: State
    rings: list[Signal] = field(default_factory=list)
