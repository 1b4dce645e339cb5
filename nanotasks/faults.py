"""Crash points: named places between two steps, where a test makes the process die, fail or hang.

    NANOTASKS_FAULT=point[:nth][:action], several of them with commas between

`nth` (default 1) is the hit that counts, over all processes that were forked from the one that read the variable;
`*` is every hit. The actions:

    kill9         the process is killed, as by the kernel (the default)
    stop          the process is stopped, until somebody sends SIGCONT
    hang          nothing goes on for ever; SIGTERM is heard
    sleep[=s]     it takes that long, in seconds (default 5)
    raise         an error that nobody expects
    busy          the database is locked
    enospc        the disk is full

`@path` reads the text from a file, at every hit anew. Inert unless the variable is set: then a point is one
comparison. `NANOTASKS_FAULT_TALLY` names a file to which every point that is reached is appended, a line each with its
name and the milliseconds of the machine's monotonic clock; with it the hits of all processes that have the variable
are counted together, also those of agents.

The points of the agents' runner (`turn.*`) are reached in `agent_runner`, which has a small `faults` of its own.
"""

from __future__ import annotations

import difflib
import errno
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nanotasks.errors import ConfigError

VARIABLE = "NANOTASKS_FAULT"
TALLY = "NANOTASKS_FAULT_TALLY"

# Every point, and what is true there.
POINTS = {
    "accept.before_commit": "a message is entered in the intake log, and nothing is committed",
    "accept.after_commit": "a message is accepted; its producer was not answered and nobody was signalled",
    "route.before_commit": "a batch of one chat is decided and written, and nothing is committed",
    "route.after_commit": "routes stand; nobody was signalled to append them",
    "append.before_commit": "rows are inserted in inbound.db, and nothing is committed",
    "append.after_commit": "rows stand in inbound.db; their routes are still pending",
    "append.after_mark": "routes are marked as appended, the session is due, and nobody was signalled to wake it",
    "wake.after_mutex": "the session's mutex is taken",
    "wake.after_enter": "a start is recorded; nothing runs",
    "wake.after_prepare": "the surroundings of a start are written; nothing runs",
    "wake.after_start": "an agent runs; its row does not say so yet",
    "wake.after_record": "an agent runs and its row says so",
    "stop.after_note": "a stop is noted; the agent runs",
    "stop.after_stop": "an agent was stopped; its row is live",
    "bury.after_reset": "the claims of a dead agent are put off; that is not recorded",
    "bury.after_due": "the session of a dead agent is due again; its row is live",
    "bury.after_end": "the row of a dead agent is ended; nobody was signalled",
    "exit.after_note": "the end of an agent is noted; nobody was signalled",
    "enter.before_commit": "outbound rows are entered in the ledger, and nothing is committed",
    "enter.after_commit": "outbound rows stand in the ledger; none was sent",
    "deliver.after_claim": "a row is `sending`; its send has not begun",
    "deliver.after_send": "the channel took a message; nothing says so",
    "deliver.after_finish": "the outcome of a send is recorded; the session does not know",
    "deliver.after_recover": "a lost send was decided on; nobody was signalled",
    "settle.before_inbound": "outcomes are written into inbound.db, and nothing is committed",
    "settle.after_inbound": "inbound.db has the outcomes; the outbox and the ledger do not know",
    "settle.after_outbox": "delivered files are removed from the outbox; the ledger does not know",
    "settle.after_record": "routes are ended; nobody was signalled of what follows",
    "schedule.after_follow": "what an agent did with a scheduled task is recorded; its file does not say what follows",
    "schedule.after_decide": "what is planned for a session is decided and recorded; its file does not say so",
    "schedule.before_write": "rows of scheduled tasks are written, and nothing is committed",
    "schedule.after_write": "the file says what is planned; the runs do not know",
    "ring.after_bell": "a bell is set; its signal was not sent",
    "tick.after_claim": "a tick is claimed; its duty was not done",
    "sweep.after_mark": "what was found is marked as signalled; no signal was sent",
    "alarm.after_mark": "what is due on this host is marked as signalled; no signal was sent",
    "lease.before_write": "a host's sign of life is committed; its agents on shared storage are not told",
    "move.after_commit": "the agent groups of a host that is gone have moved; nobody was signalled",
    "central.begin": "a transaction of the central database is about to begin",
    "central.commit": "a transaction of the central database is about to be committed",
    "inbound.commit": "a transaction of an inbound.db is about to be committed",
    "turn.after_recover": "a runner has given back what another left claimed",
    "turn.before_claim": "a runner's claims are written, and nothing is committed",
    "turn.after_claim": "a runner has claimed rows; nobody was asked",
    "turn.before_end": "the end of a turn is written, rows and acks, and nothing is committed",
    "turn.after_end": "the end of a turn is committed",
}
OF_AGENTS = "turn."
ACTIONS = ("kill9", "stop", "hang", "sleep", "raise", "busy", "enospc")

_DEFAULT_SLEEP_S = 5.0
_EVERY = 0


class FaultError(RuntimeError):
    """A fault that a test asked for."""


class DiskFullError(sqlite3.OperationalError, OSError):
    """As a full disk is told, by SQLite and by the operating system."""


@dataclass(frozen=True)
class Plan:
    """What happens at the nth hit of a point; 0 is every hit. `seconds` is how long a sleep takes."""

    point: str
    nth: int = 1
    action: str = "kill9"
    seconds: float = _DEFAULT_SLEEP_S


def parse(text: str) -> list[Plan]:
    """The plans of a text. Raises `ConfigError` for what means nothing."""
    return [_plan(word.strip()) for word in text.split(",") if word.strip()]


def check(environ: Mapping[str, str]) -> None:
    """Raises `ConfigError` where the variable means nothing."""
    text = environ.get(VARIABLE, "")
    if not text.startswith("@"):
        parse(text)


def _plan(word: str) -> Plan:
    name, *rest = word.split(":")
    if name not in POINTS:
        raise ConfigError(f"{VARIABLE} names no point: {name!r}.", fix=_did_you_mean(name, POINTS))
    nth, action, seconds = 1, "kill9", _DEFAULT_SLEEP_S
    for part in rest:
        verb, given, amount = part.partition("=")
        if part == "*" or part.isdecimal():
            nth = _EVERY if part == "*" else int(part)
        elif verb in ACTIONS and (not given or (verb == "sleep" and _is_number(amount))):
            action = verb
            seconds = float(amount) if given else seconds
        else:
            raise ConfigError(f"{VARIABLE} has no action {part!r}.", fix=f"There are {', '.join(ACTIONS)}.")
    return Plan(name, nth, action, seconds)


def _did_you_mean(name: str, known: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else "They are listed in nanotasks/faults.py."


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


class _Armed:
    """The plans of this process and those forked from it, and the tally in which hits are counted."""

    def __init__(self, text: str, tally: str) -> None:
        self._path = text.removeprefix("@") if text.startswith("@") else ""
        self._plans = [] if self._path else parse(text)
        self._memory = None if tally else os.memfd_create("faults")
        self._tally = tally or f"/proc/self/fd/{self._memory}"

    def close(self) -> None:
        """Give back what the tally is kept in."""
        if self._memory is not None:
            os.close(self._memory)

    def reach(self, name: str) -> None:
        hit = self._count(name)
        for plan in parse(_read(self._path)) if self._path else self._plans:
            if plan.point == name and plan.nth in (hit, _EVERY):
                _act(plan)

    def _count(self, name: str) -> int:
        # Opened anew: each look has a place of its own, and an append says where in the file it ended.
        handle = os.open(self._tally, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, f"{name} {time.monotonic_ns() // 1_000_000}\n".encode())
            end = os.lseek(handle, 0, os.SEEK_CUR)
            return sum(line.startswith(f"{name} ") for line in os.pread(handle, end, 0).decode().split("\n"))
        finally:
            os.close(handle)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _act(plan: Plan) -> None:
    if plan.action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)  # the signal is on its way
    elif plan.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif plan.action == "hang":
        while True:
            time.sleep(3600)
    elif plan.action == "sleep":
        time.sleep(plan.seconds)
    else:
        _fail(plan)


def _fail(plan: Plan) -> NoReturn:
    if plan.action == "raise":
        raise FaultError(f"a fault at {plan.point}")
    busy = plan.action == "busy"
    text = "database is locked" if busy else "database or disk is full"
    error: sqlite3.OperationalError = sqlite3.OperationalError(text) if busy else DiskFullError(errno.ENOSPC, text)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY if busy else sqlite3.SQLITE_FULL
    if plan.point.startswith("central."):
        from sqlalchemy.exc import OperationalError

        raise OperationalError(None, None, error)
    raise error


def _from(environ: Mapping[str, str]) -> _Armed | None:
    text, tally = environ.get(VARIABLE, ""), environ.get(TALLY, "")
    try:
        return _Armed(text, tally) if text or tally else None
    except ConfigError:
        return None  # the settings tell it


_armed = _from(os.environ)


def point(name: str) -> None:
    """Reach a point of `POINTS`."""
    if _armed is not None:
        _armed.reach(name)


@contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm this process for a block; `text` as in `NANOTASKS_FAULT`."""
    global _armed
    before, _armed = _armed, _Armed(text, "")
    armed_here = _armed
    try:
        yield
    finally:
        _armed = before
        armed_here.close()


def environment_of_agents() -> dict[str, str]:
    """The variables that arm the runner of an agent; none unless this process is armed for it."""
    wanted = os.environ.get(VARIABLE, ""), os.environ.get(TALLY, "")
    if _armed is None or not (OF_AGENTS in wanted[0] or wanted[0].startswith("@") or wanted[1]):
        return {}
    return {name: text for name, text in zip((VARIABLE, TALLY), wanted, strict=True) if text}
