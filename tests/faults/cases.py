"""One case: a fault, some traffic, and what the checker says when everything has come to rest."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from nanotasks.faults import OF_AGENTS
from tests.faults.checker import UNANSWERED, Checker, Ledger, Said
from tests.faults.platform import Answer
from tests.faults.world import World, wait

REST_S = 40.0


@dataclass(frozen=True)
class Outcome:
    """`reached` tells whether every armed fault happened; `recovered_s` is from the first of them to the last reply."""

    reached: bool
    recovered_s: float
    violations: list[str]


def run_case(world: World, fault: str, *, seed: int, crash: bool = False, cold: bool = True) -> Outcome:
    """Arm `fault`, speak, wait for rest, check.

    The seed chooses what is said in which order. `crash` adds a message at which the agent dies each time; without
    `cold` the agents run already when the fault is armed.
    """
    chance = random.Random(seed)
    checker = Checker(world.here.settings)
    ledger = Ledger()
    chats = world.chats(3 if crash else 2)
    if not cold:
        for chat in chats:
            _say(world, ledger, Said(f"{chat}-warm", chat, f"echo {chat} warm", (f"{chat} warm",)))
        _rest(world, checker, ledger)
    world.arm(fault)
    for one in _traffic(world, chance, chats):
        _say(world, ledger, one)
    if crash:
        _say(world, ledger, Said(f"{chats[-1]}-crash", chats[-1], "crash", (UNANSWERED,), "dead"))
    unrest = _rest(world, checker, ledger)
    arrivals = world.platform.of_chats(ledger.chats)
    hits = world.hits()
    world.clear()
    found = [f"I9 not at rest after {REST_S:g} s: {unrest}"] if unrest else []
    found += checker.violations(ledger, arrivals, turns_repeat=crash or OF_AGENTS in fault)
    first = _first_fault(fault, hits)
    last = max((one.at for one in arrivals), default=0.0)
    return Outcome(_all_reached(fault, hits), max(0.0, last - first) if first else 0.0, found)


def run_traffic(world: World, disturb: Callable[[int], None], *, chats: int = 5, rounds: int = 6) -> list[str]:
    """Speak in several chats, round after round, with `disturb(round)` in between; what is broken afterwards."""
    checker, ledger = Checker(world.here.settings), Ledger()
    names = world.chats(chats)
    for turn in range(rounds):
        for chat in names:
            _say(world, ledger, Said(f"{chat}-{turn}", chat, f"echo {chat} turn {turn}", (f"{chat} turn {turn}",)))
        disturb(turn)
    return conclude(world, checker, ledger)


def conclude(world: World, checker: Checker, ledger: Ledger) -> list[str]:
    """Wait for rest, and check."""
    unrest = _rest(world, checker, ledger)
    found = [f"I9 not at rest after {REST_S:g} s: {unrest}"] if unrest else []
    return found + checker.violations(ledger, world.platform.of_chats(ledger.chats))


def _say(world: World, ledger: Ledger, said: Said) -> None:
    world.say(said.chat, said.message_id, said.text)
    ledger.said.append(said)


def _traffic(world: World, chance: random.Random, chats: list[str]) -> list[Said]:
    """Some words in each chat, one with a file, one whose first send is refused; mixed by chance."""
    streams = []
    for chat in chats:
        stream = [
            Said(f"{chat}-{n}", chat, f"echo {chat} word {n}", (f"{chat} word {n}",))
            for n in range(chance.randint(1, 3))
        ]
        if chat == chats[0]:
            said = Said(f"{chat}-file", chat, "file notes.txt remember", ("Here is your file.",), by_tool=True)
            stream.insert(chance.randint(0, len(stream)), said)
        else:
            world.platform.script(stream[-1].replies[0], Answer("refuse", status=500))
        streams.append(stream)
    mixed = []
    while any(streams):
        stream = chance.choice([one for one in streams if one])
        mixed.append(stream.pop(0))
    return mixed


def _rest(world: World, checker: Checker, ledger: Ledger) -> str:
    """Wait for rest; what keeps it from coming, or nothing."""
    unrest: Callable[[], str] = lambda: checker.unfinished(ledger)  # noqa: E731
    try:
        wait(lambda: not unrest(), REST_S, "rest")
    except AssertionError:
        return unrest()
    return ""


def _plans(fault: str) -> list[tuple[str, int]]:
    found = []
    for word in fault.split(","):
        name, *parts = word.split(":")
        found.append((name, next((int(part) for part in parts if part.isdecimal()), 1)))
    return found


def _all_reached(fault: str, hits: list[tuple[str, float]]) -> bool:
    names = [name for name, _ in hits]
    return all(names.count(name) >= nth for name, nth in _plans(fault))


def _first_fault(fault: str, hits: list[tuple[str, float]]) -> float:
    times = []
    for name, nth in _plans(fault):
        of_name = [at for one, at in hits if one == name]
        if len(of_name) >= nth:
            times.append(of_name[nth - 1])
    return min(times, default=0.0)
