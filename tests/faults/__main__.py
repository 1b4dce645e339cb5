"""`python -m tests.faults`: cases for as long as it is told, and what the count of them allows to say.

    --seconds N      how long (default 600)
    --rounds N       how often each fault, whatever time that takes
    --only KIND      killed-once, killed-twice or failing; repeatable (default: all three)
    --seed N         the first seed (default 1); each round over all faults takes the next
    --guards         remove every guard first, and print a table
    --examples N     before the cases, games of the state machine with steps at random (default 100)

Prints a line for each violation, with its seed, and at the end the number of cases and the rule of three: with no
violation in n independent cases, fewer than 3/n of all such cases fail, with 95 % confidence.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from nanotasks.central import Database
from nanotasks.central.migrate import upgrade
from tests.faults import plan
from tests.faults.cases import Outcome, run_case
from tests.faults.checker import lines
from tests.faults.guards import GUARDS
from tests.faults.machine.play import on_sqlite, play
from tests.faults.mutations import copy_of_project, notices, remove
from tests.faults.platform import Platform
from tests.faults.world import QUICK, World

# So much of the log is shown of a case that could not be played to its end.
LOG_LINES = 200


def main() -> int:
    """Run; 1 when something was violated, or a guard was not missed."""
    parser = argparse.ArgumentParser(prog="tests.faults")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", action="append", choices=plan.KINDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guards", action="store_true")
    parser.add_argument("--examples", type=int, default=100)
    given = parser.parse_args()
    unmissed = _remove_guards() if given.guards else 0
    broken = _play(given.examples) if given.examples else False
    violated = _run_cases(plan.every(given.only or plan.KINDS), given.seconds, given.rounds, given.seed)
    return 1 if unmissed or broken or violated else 0


def _play(examples: int) -> bool:
    """Whether a promise was broken; the steps that led there are printed."""
    with tempfile.TemporaryDirectory(prefix="nt-") as name:
        path = Path(name) / "central.db"
        database = Database(f"sqlite:///{path}")
        upgrade(database)
        database.close()
        try:
            play(on_sqlite(path), examples, at_random=True)
        except Exception:
            _say(f"The state machine:\n{traceback.format_exc()}")
            return True
    _say(f"{examples} games of the state machine, and no promise broken.")
    return False


def _remove_guards() -> int:
    unmissed = 0
    for guard in GUARDS:
        with copy_of_project() as copy:
            remove(guard, copy)
            red, _ = notices(guard, copy)
        unmissed += not red
        _say(f"{'red  ' if red else 'GREEN'}  {guard.promise:4} {guard.name}")
    return unmissed


def _run_cases(faults: list[plan.Case], seconds: float, rounds: int | None, seed: int) -> int:
    until = time.monotonic() + (seconds if rounds is None else math.inf)
    outcomes: list[Outcome] = []
    violated = unreached = 0
    with (
        tempfile.TemporaryDirectory(prefix="nt-") as name,
        Platform().open() as platform,
        World(Path(name), platform, **QUICK).running() as world,
    ):
        for case, number in _cases(faults, seed, rounds):
            try:
                outcome = run_case(world, case.fault, seed=number, crash=case.crash)
            except Exception:
                last = "\n".join(world.here.log("up").splitlines()[-LOG_LINES:])
                _say(f"{case.fault}, seed {number}, did not come to its end. The log's last lines:\n{last}")
                raise
            outcomes.append(outcome)
            unreached += not outcome.reached
            if outcome.violations:
                violated += 1
                _say(f"{case.fault}, seed {number}:\n{lines(outcome.violations)}")
            if len(outcomes) % len(faults) == 0:
                _say(f"seed {number}: {len(outcomes)} cases so far, {violated} violations")
            if time.monotonic() > until:
                break
    _say(
        f"{len(outcomes)} cases over {len(faults)} faults, the last seed {number}; {violated} violations,"
        f" {unreached} cases in which a second fault was not reached."
    )
    if times := sorted(one.recovered_s for one in outcomes if one.recovered_s):
        _say(f"From the fault to the last reply: median {statistics.median(times):.2f} s, longest {times[-1]:.2f} s.")
    if not violated:
        _say(f"With 95 % confidence fewer than {3 / len(outcomes):.2%} of such cases are violated (3/n).")
    return violated


def _cases(faults: list[plan.Case], seed: int, rounds: int | None) -> Iterator[tuple[plan.Case, int]]:
    """Every fault with one seed, then with the next."""
    for number in itertools.count(seed) if rounds is None else range(seed, seed + rounds):
        for case in faults:
            yield case, number


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
