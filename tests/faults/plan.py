"""Which fault is tried at which point, and with what traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nanotasks.faults import POINTS

# Points that only a recovery reaches, with the fault before it.
_BEFORE = {
    "deliver.after_recover": "deliver.after_send",
    "sweep.after_mark": "accept.after_commit",
    "turn.after_recover": "turn.after_claim",
}
_WITH_CRASH = ("bury.", "exit.")
# Reached by scheduled tasks only: `test_scheduled_tasks.py`.
OF_SCHEDULE = "schedule."
# Reached on shared storage only: `test_shared_storage.py`.
OF_SHARED_STORAGE = ("lease.", "move.")
_POINTS = [point for point in POINTS if not point.startswith((OF_SCHEDULE, *OF_SHARED_STORAGE))]
# Where an error is as likely as a death.
_FAILING = ("central.begin", "central.commit", "inbound.commit", "append.before_commit", "turn.before_end")


@dataclass(frozen=True)
class Case:
    """`crash`: somebody says something that the agent dies of."""

    fault: str
    crash: bool = False

    @property
    def name(self) -> str:
        return self.fault.replace(":kill9", "")


def killed_once() -> Iterator[Case]:
    """A kill -9 at each point."""
    for point in _POINTS:
        before = f"{_BEFORE[point]}:1:kill9," if point in _BEFORE else ""
        yield Case(f"{before}{point}:1:kill9", crash=point.startswith(_WITH_CRASH))


def killed_twice() -> Iterator[Case]:
    """A kill -9 at each point, and again when the recovery comes by it."""
    for point in _POINTS:
        before = f"{_BEFORE[point]}:1:kill9," if point in _BEFORE else ""
        yield Case(f"{before}{point}:1:kill9,{point}:2:kill9", crash=point.startswith(_WITH_CRASH))


def failing() -> Iterator[Case]:
    """The disk is full, the database is locked, or something nobody expected is raised, at the nth time."""
    for point in _FAILING:
        for action in ("enospc", "busy", "raise"):
            yield Case(f"{point}:2:{action}")


KINDS: dict[str, Callable[[], Iterator[Case]]] = {
    "killed-once": killed_once,
    "killed-twice": killed_twice,
    "failing": failing,
}


def every(kinds: Iterable[str] = KINDS) -> list[Case]:
    """All of these kinds."""
    return [case for kind in kinds for case in KINDS[kind]()]
