"""What every step of the machine needs: who acts, what is on its way, and how a step is told to Hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import text
from sqlalchemy.orm import Session

from nanotasks.central import Database, meta
from nanotasks.channels.contract import Accepted, Address, InboundMessage
from nanotasks.deliver.ledger import Claim
from nanotasks.intake.accept import accept_all
from nanotasks.intake.prepared import prepare
from nanotasks.ops import dead
from nanotasks.wake import service as wake
from tests.faults.machine import tasks
from tests.faults.machine.agents import Agent, Daemon
from tests.faults.machine.house import CHATS, House
from tests.faults.machine.leases import Claims
from tests.faults.machine.workers import Fault, Stand, Worker

# Points that the rules come by; the others are of Celery's tasks, of scheduled tasks and of the real runner.
_POINTS = {
    "accept": ("accept.before_commit",),
    "route": ("route.before_commit", "route.after_commit", "append.before_commit", "append.after_commit"),
    "append": ("append.before_commit", "append.after_commit", "append.after_mark"),
    "wake": (
        *(f"wake.after_{step}" for step in ("mutex", "enter", "prepare", "start", "record")),
        *(f"bury.after_{step}" for step in ("reset", "due", "end")),
    ),
    "deliver": (
        "enter.before_commit",
        "enter.after_commit",
        *(f"deliver.after_{step}" for step in ("claim", "send", "finish", "recover")),
        *(f"settle.{step}" for step in ("before_inbound", "after_inbound", "after_outbox", "after_record")),
    ),
    "attempt": (
        *(f"deliver.after_{step}" for step in ("claim", "send", "finish")),
        *(f"settle.{step}" for step in ("before_inbound", "after_inbound", "after_outbox", "after_record")),
    ),
    "stop": ("stop.after_note", "stop.after_stop", "bury.after_due", "bury.after_end"),
    "exit": ("exit.after_note",),
    "sweep": ("stop.after_stop", "bury.after_end"),
}
_ANYWHERE = ("central.begin", "central.commit", "inbound.commit")

Numbers = st.integers(0, 9)
# A number that chooses the point, at which time it is reached, and whether it kills.
Faults = st.one_of(st.none(), st.tuples(st.integers(0, 29), st.sampled_from((1, 1, 2, 3)), st.booleans()))
Drawn = tuple[int, int, bool] | None
Step = Callable[..., None]
STEPS: dict[str, Step] = {}
ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}
NAMES: list[str] = []


def step(
    *, weight: int = 1, when: Callable[[Any], Any] = lambda _machine: True, **arguments: st.SearchStrategy[Any]
) -> Callable[[Step], Step]:
    """Something that may happen, `weight` times as often as others and only `when` it can.

    Not a rule of Hypothesis: from these it would take a few for each run, and leave the others out. Then next to no
    run has all that it takes from a message to its reply.
    """

    def register(function: Step) -> Step:
        def possibly(machine: Any, **drawn: Any) -> None:
            if when(machine):
                function(machine, **drawn)

        STEPS[function.__name__] = possibly
        ARGUMENTS[function.__name__] = st.fixed_dictionaries(arguments)
        NAMES.extend([function.__name__] * weight)
        return function

    return register


def _fault(of: str, drawn: Drawn) -> Fault | None:
    if drawn is None:
        return None
    points = (*_POINTS.get(of, ()), *_ANYWHERE)
    return Fault(points[drawn[0] % len(points)], drawn[1], drawn[2])


class Game(RuleBasedStateMachine):
    """`open_database` gives a fresh central database and a directory, and what closes them."""

    open_database: Callable[[], tuple[Database, Path, Callable[[], None]]]
    claims: Claims

    def __init__(self) -> None:
        super().__init__()
        self.observer, self._directory, self._close_database = type(self).open_database()
        self.stand = Stand()
        self.bells = tasks.Bells()
        self.accepted: dict[str, str] = {}
        self.said: list[InboundMessage] = []
        # Sends in mid-air, each with the worker that makes it.
        self.sends: list[tuple[Worker, Claim]] = []
        self.house: House | None = None
        # Whether the last look found nothing broken; while somebody acts nobody knows.
        self._sound = False

    # What workers do

    def _answer(self, signal: tasks.Signal, number: int, fault: Drawn) -> None:
        host = tasks.host_of(signal)
        worker = self._some(number, host)
        with self._acting(worker, signal[0], fault):
            tasks.answer(worker, signal, self.bells)

    def _sweep(self, worker: Worker, which: str, fault: Drawn) -> None:
        with self._acting(worker, "sweep", fault):
            tasks.sweep(worker, which, self.bells)

    def _say(self, worker: Worker, chat: int, words: str, fault: Drawn) -> None:
        number = len(self.said)
        content = {"text": f"{words} {number}", "senderId": "1"}
        message = InboundMessage(
            Address(*CHATS[chat % len(CHATS)]), f"m{number}", content, "2027-01-15T08:00:00.000Z", is_group=True
        )
        self.said.append(message)
        self._accept(worker, message, fault)

    def _accept(self, worker: Worker, message: InboundMessage, fault: Drawn) -> None:
        with self._acting(worker, "accept", fault):
            (outcome,) = accept_all(worker.db, [prepare(message)], max_pending=100)
            assert isinstance(outcome, Accepted)
            known = self.accepted.setdefault(message.message_id, outcome.event_id)
            assert known == outcome.event_id, f"I1 {message.message_id} was accepted twice, as {known} and {outcome}"
            self.bells.ring("route", message.address.channel_type, message.address.platform_id)

    def _notice(self, agent: Agent) -> None:
        session_id = agent.running.session_id
        self.bells.ring("deliver", session_id, self._host_of(session_id))

    def _notice_exits(self, number: int, fault: Drawn) -> None:
        for host, daemon in self._home.daemons.items():
            worker = self._some(number, host)
            while daemon.exits and worker.alive:
                with self._acting(worker, "exit", fault):
                    self.bells.ring_all(wake.on_exit(worker.here, daemon.exits[0]))
                daemon.exits.pop(0)

    def _settle(self, session: Session, entry: dead.Dead, verb: str) -> None:
        rings = (dead.retry if verb == "retry" else dead.discard)(session, entry)
        meta.record(session, "test", f"dead.{verb}", entry.id, {})
        self.bells.ring_all(rings)

    # Helpers

    @property
    def _home(self) -> House:
        assert self.house is not None
        return self.house

    def _acting(self, worker: Worker, what: str, fault: Drawn) -> _Acting:
        self.stand.clock.advance(0.001)
        return _Acting(self, worker, _fault(what, fault))

    def _bury(self) -> None:
        """What was in a worker's memory is gone with it."""
        self.sends = [one for one in self.sends if one[0].alive]
        self.claims.bury()

    def _some(self, number: int, host: str | None = None) -> Worker:
        """A worker, of this host; one that died is started anew by its supervisor."""
        workers = self._home.workers_of(host) if host else self._home.workers
        worker = workers[number % len(workers)]
        worker.start()
        return worker

    def _agents(self) -> list[Agent]:
        return [agent for daemon in self._home.daemons.values() for agent in daemon.agents.values()]

    def _agent(self, which: int) -> Agent:
        agents = self._agents()
        return agents[which % len(agents)]

    def _daemon_of(self, session_id: str) -> Daemon:
        return next(one for one in self._home.daemons.values() if one.is_alive(session_id))

    def _sessions(self) -> list[tuple[str, str]]:
        return [
            (row["id"], row["host_id"])
            for row in self._rows(
                "SELECT s.id, g.host_id FROM sessions s JOIN agent_groups g ON g.id = s.agent_group_id"
                " WHERE g.host_id IS NOT NULL ORDER BY s.created_at, s.route_key"
            )
        ]

    def _host_of(self, session_id: str) -> str:
        return dict(self._sessions())[session_id]

    def _lanes(self) -> list[tuple[str, str]]:
        return [
            (row["lane"], row["session_id"])
            for row in self._rows(
                "SELECT lane, session_id, min(created_at) AS since FROM deliveries"
                " GROUP BY lane, session_id ORDER BY since, lane"
            )
        ]

    def _delivery(self, delivery_id: str) -> dict[str, Any]:
        return self._rows("SELECT * FROM deliveries WHERE id = :id", id=delivery_id)[0]

    def _attempts(self, delivery_id: str) -> list[dict[str, Any]]:
        return self._rows("SELECT * FROM delivery_attempts WHERE delivery_id = :id ORDER BY number", id=delivery_id)

    def _rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        with self.observer.read_core() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]


class _Acting:
    """A block in which a worker acts; if it dies in it, it is buried."""

    def __init__(self, machine: Game, worker: Worker, fault: Fault | None) -> None:
        self._machine, self._block = machine, machine.stand.acting(worker, fault)

    def __enter__(self) -> None:
        self._machine._sound = False
        self._block.__enter__()

    def __exit__(self, *raised: Any) -> bool:
        swallowed = bool(self._block.__exit__(*raised))
        self._machine._bury()
        return swallowed
