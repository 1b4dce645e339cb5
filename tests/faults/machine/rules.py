"""The machine: what may happen, in any order, and what is looked at after each step.

A signal that rings is heard by a worker, heard twice, or lost; workers die or fail at any crash point; sends may be
held in mid-air while others work on; the clock jumps. In the end everything is well again, and all must come to rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select, text

from nanotasks.central import Database, meta
from nanotasks.central.deliveries import Delivery
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import Accepted, Address, InboundMessage
from nanotasks.deliver import calls, lanes
from nanotasks.deliver import operator as deliveries
from nanotasks.deliver.entry import Entry
from nanotasks.deliver.facts import begin_round
from nanotasks.deliver.ledger import Claim
from nanotasks.errors import ConflictError
from nanotasks.intake.accept import accept_all
from nanotasks.intake.prepared import prepare
from nanotasks.ops import dead
from nanotasks.wake import service as wake
from tests.faults.machine import tasks
from tests.faults.machine.agents import Agent
from tests.faults.machine.house import CHATS, ENDS, POISON, House
from tests.faults.machine.leases import Claimed, Claims
from tests.faults.machine.promises import Promises
from tests.faults.machine.tasks import Bells
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
_PASSES = 80
_TEXTS = ("hello", "hello", "hello bert", "hello bert", POISON)

Numbers = st.integers(0, 9)
Faults = st.one_of(st.none(), st.tuples(st.integers(0, 29), st.sampled_from((1, 1, 2, 3)), st.booleans()))
Drawn = tuple[int, int, bool] | None
Verbs = st.sampled_from(("renew", "release"))


def _fault(of: str, drawn: Drawn) -> Fault | None:
    if drawn is None:
        return None
    points = (*_POINTS.get(of, ()), *_ANYWHERE)
    return Fault(points[drawn[0] % len(points)], drawn[1], drawn[2])


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

        _STEPS[function.__name__] = possibly
        _ARGUMENTS[function.__name__] = st.fixed_dictionaries(arguments)
        _NAMES.extend([function.__name__] * weight)
        return function

    return register


Step = Callable[..., None]
_STEPS: dict[str, Step] = {}
_ARGUMENTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}
_NAMES: list[str] = []


class Machine(RuleBasedStateMachine):
    """`open_database` gives a fresh central database and a directory, and what closes them."""

    open_database: Callable[[], tuple[Database, Path, Callable[[], None]]]

    def __init__(self) -> None:
        super().__init__()
        self.observer, self._directory, self._close_database = type(self).open_database()
        self.stand = Stand()
        self.bells = Bells()
        self.accepted: dict[str, str] = {}
        self.said: list[InboundMessage] = []
        # Sends in mid-air, each with the worker that makes it.
        self.sends: list[tuple[Worker, Claim]] = []
        self.house: House | None = None
        self._sound = False

    @initialize(hosts=st.integers(1, 2), uncertain=st.sampled_from(("resend", "hold")))
    def furnish(self, hosts: int, uncertain: str) -> None:
        self.house = House(self.observer, self._directory, hosts, uncertain)
        self.promises = Promises(self.house)
        self.claims = Claims(self.house)
        # Agents run and some have spoken: from here each kind of step has something to happen to, whichever are drawn.
        for chat in range(len(CHATS)):
            self._say(self._some(chat), chat, "hello bert", None)
        self._hear_all()
        for agent in self._agents():
            agent.claim()
            agent.finish("answer")
            agent.say("something", *CHATS[1])
            self._notice(agent)

    # Signals and sweeps

    @step(weight=6, when=lambda self: self.bells.rung, which=Numbers, worker=Numbers, twice=st.booleans(), fault=Faults)
    def a_signal_is_heard(self, which: int, worker: int, twice: bool, fault: Drawn) -> None:
        signal = self.bells.rung[which % len(self.bells.rung)]
        if not twice:
            self.bells.rung.remove(signal)
        self._answer(signal, worker, fault)

    @step(weight=2, when=lambda self: self.bells.rung, worker=Numbers, count=st.integers(2, 6))
    def several_signals_are_heard(self, worker: int, count: int) -> None:
        for _ in range(count):
            if self.bells.rung:
                self._answer(self.bells.rung.pop(0), worker, None)

    @step(weight=4, seconds=st.sampled_from((2, 6, 31)), worker=Numbers, count=st.integers(1, 6), fault=Faults)
    def what_is_due_is_done(self, seconds: float, worker: int, count: int, fault: Drawn) -> None:
        self.stand.clock.advance(seconds)
        for host in self._home.hosts:
            self._sweep(self._some(worker, host), "alarm", None)
        for _ in range(min(count, len(self.bells.rung))):
            self._answer(self.bells.rung.pop(), worker, fault)

    @step(when=lambda self: self.bells.rung)
    def all_signals_are_lost(self) -> None:
        self.bells.rung.clear()

    @step(weight=3, worker=Numbers, which=st.sampled_from(tasks.SWEEPS), fault=Faults)
    def a_sweep_passes(self, worker: int, which: str, fault: Drawn) -> None:
        self._sweep(self._some(worker), which, fault)

    def _answer(self, signal: tasks.Signal, number: int, fault: Drawn) -> None:
        host = tasks.host_of(signal)
        worker = self._some(number, host)
        if worker is not None:
            with self._acting(worker, signal[0], fault):
                tasks.answer(worker, signal, self.bells)

    def _sweep(self, worker: Worker, which: str, fault: Drawn) -> None:
        with self._acting(worker, "sweep", fault):
            tasks.sweep(worker, which, self.bells)

    # Messages come in

    @step(weight=2, worker=Numbers, chat=Numbers, to=st.sampled_from(_TEXTS), fault=Faults)
    def somebody_writes(self, worker: int, chat: int, to: str, fault: Drawn) -> None:
        self._say(self._some(worker), chat, to, fault)

    @step(when=lambda self: self.said, worker=Numbers, which=Numbers)
    def the_platform_sends_again(self, worker: int, which: int) -> None:
        self._accept(self._some(worker), self.said[which % len(self.said)], None)

    def _say(self, worker: Worker, chat: int, to: str, fault: Drawn) -> None:
        number = len(self.said)
        content = {"text": f"{to} {number}", "senderId": "1"}
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

    # Agents

    @step(
        weight=3,
        when=lambda self: self._agents(),
        which=Numbers,
        how=st.sampled_from(("answer", "answer", "answer", "silent", "failed")),
        claims=st.booleans(),
    )
    def an_agent_takes_a_turn(self, which: int, how: str, claims: bool) -> None:
        agent = self._agent(which)
        if claims:
            agent.claim()
        if agent.finish(how):
            self._notice(agent)

    @step(
        weight=6,
        when=lambda self: self._agents(),
        which=Numbers,
        worker=Numbers,
        to=Numbers,
        ends=st.lists(st.sampled_from(ENDS), max_size=3),
        fault=Faults,
    )
    def an_agent_is_heard(self, which: int, worker: int, to: int, ends: list[str], fault: Drawn) -> None:
        """It answers what there is, says two things more, and a worker delivers that at once."""
        agent = self._agent(which)
        agent.claim()
        agent.finish("answer")
        agent.say("one", *CHATS[to % len(CHATS)])
        agent.say("two", *CHATS[to % len(CHATS)])
        self._home.platform.script[:] = ends
        session_id = agent.running.session_id
        self._answer(("deliver", session_id, self._host_of(session_id)), worker, fault)

    @step(when=lambda self: self._agents(), which=Numbers)
    def an_agent_begins_a_turn(self, which: int) -> None:
        self._agent(which).claim()

    @step(weight=2, when=lambda self: self._agents(), which=Numbers, to=Numbers, count=st.integers(1, 3))
    def an_agent_speaks(self, which: int, to: int, count: int) -> None:
        agent = self._agent(which)
        for number in range(count):
            agent.say(f"something {number}", *CHATS[to % len(CHATS)])
        self._notice(agent)

    @step(when=lambda self: self._agents(), which=Numbers)
    def an_agent_crashes(self, which: int) -> None:
        session_id = self._agent(which).running.session_id
        self._daemon_of(session_id).crash(session_id)

    @step(when=lambda self: any(daemon.exits for daemon in self._home.daemons.values()), worker=Numbers, fault=Faults)
    def an_exit_is_noticed(self, worker: int, fault: Drawn) -> None:
        self._notice_exits(worker, fault)

    @step(when=lambda self: self._agents(), which=Numbers, worker=Numbers, at_fault=st.booleans(), fault=Faults)
    def an_agent_is_stopped(self, which: int, worker: int, at_fault: bool, fault: Drawn) -> None:
        session_id = self._agent(which).running.session_id
        one = self._some(worker, self._host_of(session_id))
        with self._acting(one, "stop", fault):
            self.bells.ring_all(wake.stop(one.here, session_id, "for a test", wait_s=0, at_fault=at_fault).rings)

    @step(host=Numbers)
    def the_next_start_fails(self, host: int) -> None:
        self._home.daemons[self._home.hosts[host % len(self._home.hosts)]].refuses += 1

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

    # Sends

    @step(weight=3, ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=4))
    def the_platform_will_answer(self, ends: list[str]) -> None:
        self._home.platform.script[:] = ends

    @step(weight=3, when=lambda self: self._lanes(), which=Numbers, worker=Numbers, later=st.booleans())
    def sends_begin(self, which: int, worker: int, later: bool) -> None:
        """Two workers want a lane's head, or what is to be tried again there. Whoever gets it is slow about it."""
        lanes_now = self._lanes()
        lane, session_id = lanes_now[which % len(lanes_now)]
        for agent in self._agents():
            if agent.running.session_id == session_id:
                for text_said in ("three", "four"):
                    agent.say(text_said, *lane.split("|")[1:])
        for number in (worker, worker + 1):
            self.sends += self._begin_send(which, number, later)

    @step(weight=4, when=lambda self: self.sends, which=Numbers, how=st.sampled_from(ENDS), go_on=st.booleans())
    def a_send_ends(self, which: int, how: str, go_on: bool) -> None:
        self._end_send(*self.sends.pop(which % len(self.sends)), how, go_on)

    @step(
        weight=3,
        when=lambda self: self._lanes(),
        which=Numbers,
        worker=Numbers,
        away_s=st.sampled_from((6, 36, 70)),
        other=Numbers,
        how=st.sampled_from(ENDS),
    )
    def a_sender_was_away(self, which: int, worker: int, away_s: int, other: int, how: str) -> None:
        """It begins, others look at the session meanwhile, and it goes on late."""
        for one, claim in self._begin_send(which, worker, later=True):
            self.stand.clock.advance(away_s)
            self._answer(("deliver", claim.session_id, one.settings.host_id), other, None)
            self._answer(("attempt", claim.id, one.settings.host_id, claim.attempt + 1), other, None)
            self._end_send(one, claim, how, go_on=True)

    def _begin_send(self, which: int, worker: int, later: bool) -> list[tuple[Worker, Claim]]:
        lanes_now = self._lanes()
        lane, session_id = lanes_now[which % len(lanes_now)]
        one = self._some(worker, self._host_of(session_id))
        with self._acting(one, "", None):
            around = begin_round(one.db, one.settings, session_id, signals=self.bells)
            assert around is not None
            Entry(around).enter_new()
            ledger = around.ledger
            retry = ledger.next_retry(lane) if later else None
            claim = ledger.claim_attempt(retry[0], retry[1] + 1) if retry else ledger.claim_head(lane)
        return [(one, claim)] if claim else []

    def _end_send(self, worker: Worker, claim: Claim, how: str, go_on: bool) -> None:
        """It is recorded if it is still the worker's to record, and changes nothing if it is not."""
        row = self._delivery(claim.id)
        ours = (row["state"], row["attempts"], row["sending_owner"]) == ("sending", claim.attempt, str(worker.owner))
        attempts = self._attempts(claim.id)
        with self._acting(worker, "", None):
            around = begin_round(worker.db, worker.settings, claim.session_id, signals=self.bells)
            assert around is not None
            following = None
            try:
                sent = self._home.platform.end(claim.id, how)
            except Exception as error:
                failure = calls.failure_of(error)
                _, following = around.ledger.finish_failed(
                    claim, failure, lambda past: lanes.decide(around, claim, failure, past), go_on
                )
            else:
                following = around.ledger.finish_delivered(claim, sent.platform_message_id, go_on=go_on)
        if following is not None:
            self.sends.append((worker, following))
        if ours:
            assert self._delivery(claim.id)["state"] != "sending", f"{claim} was ours and is not finished"
        elif following is None or following.id != claim.id:
            assert self._delivery(claim.id) == row, f"a finish that came late changed {row}"
            assert self._attempts(claim.id) == attempts, f"a finish that came late changed {attempts}"

    # Deaths and time

    @step(worker=Numbers)
    def a_worker_dies(self, worker: int) -> None:
        self._some(worker).die()
        self._bury()

    @step(weight=3, seconds=st.sampled_from((0.5, 2, 6, 6, 31, 36, 70)), beats=st.booleans())
    def time_passes(self, seconds: float, beats: bool) -> None:
        self.stand.clock.advance(seconds)
        for agent in self._agents() if beats else ():
            agent.beat()

    # Leases

    @step(weight=4, worker=Numbers, after_s=st.sampled_from((0, 0, 6, 31)), ttl_s=st.sampled_from((5, 30)))
    def a_lease_is_taken(self, worker: int, after_s: int, ttl_s: int) -> None:
        one = self._some(worker)
        self.stand.clock.advance(after_s)
        with self._acting(one, "", None):
            self.claims.take(one, "a duty", ttl_s)

    @step(weight=2, first=Numbers, second=Numbers, away_s=st.sampled_from((0, 6, 31)), verb=Verbs)
    def a_holder_was_away(self, first: int, second: int, away_s: int, verb: str) -> None:
        """It goes on with a lease that somebody may have taken since, perhaps itself."""
        self.a_lease_is_taken(first, 0, 5)
        mine = self.claims.held[-1:]
        self.a_lease_is_taken(second, away_s, 30)
        if mine and mine[0] in self.claims.held:
            self._keep_or_give_back(mine[0], verb)

    @step(weight=4, when=lambda self: self.claims.held, which=Numbers, verb=Verbs)
    def a_lease_is_kept_or_given_back(self, which: int, verb: str) -> None:
        self._keep_or_give_back(self.claims.held[which % len(self.claims.held)], verb)

    def _keep_or_give_back(self, claimed: Claimed, verb: str) -> None:
        with self._acting(claimed.worker, "", None):
            if verb == "renew":
                self.claims.renew(claimed)
            else:
                self.claims.release(claimed)

    # Operators

    @step(worker=Numbers, which=Numbers, verb=st.sampled_from(("retry", "retry", "discard")))
    def an_operator_looks_at_the_dead(self, worker: int, which: int, verb: str) -> None:
        one = self._some(worker)
        with self._acting(one, "", None), one.db.write() as session:
            found = dead.find(session, dead.Wanted())
            if found:
                self._settle(session, found[which % len(found)], verb)

    @step(
        weight=2,
        when=lambda self: self._lanes(),
        worker=Numbers,
        which=Numbers,
        verb=st.sampled_from(("retry", "discard")),
    )
    def an_operator_looks_at_a_delivery(self, worker: int, which: int, verb: str) -> None:
        one = self._some(worker)
        with self._acting(one, "", None):
            try:
                with one.db.write() as session:
                    rows = session.scalars(select(Delivery).order_by(Delivery.created_at, Delivery.id)).all()
                    row = rows[which % len(rows)]
                    (deliveries.retry if verb == "retry" else deliveries.discard)(session, row)
                    meta.record(session, "test", f"deliveries.{verb}", row.id, {})
                self.bells.ring("deliver", row.session_id, row.host_id)
            except ConflictError:
                pass  # not in a state that an operator may change

    @step(when=lambda self: self._sessions(), worker=Numbers, which=Numbers)
    def an_operator_speaks(self, worker: int, which: int) -> None:
        one, sessions = self._some(worker), self._sessions()
        session_id, host = sessions[which % len(sessions)]
        with self._acting(one, "", None), one.db.write() as session:
            deliveries.say(session, session.get_one(AgentSession, session_id), "from the operator")
        self.bells.ring("deliver", session_id, host)

    def _settle(self, session: Any, entry: dead.Dead, verb: str) -> None:
        rings = (dead.retry if verb == "retry" else dead.discard)(session, entry)
        meta.record(session, "test", f"dead.{verb}", entry.id, {})
        self.bells.ring_all(rings)

    # What is looked at

    @rule(step=st.sampled_from(_NAMES).flatmap(lambda name: st.tuples(st.just(name), _ARGUMENTS[name])))
    def happens(self, step: tuple[str, dict[str, Any]]) -> None:
        name, drawn = step
        _STEPS[name](self, **drawn)

    @invariant()
    def nothing_is_broken(self) -> None:
        if self.house is None:
            return
        self._sound = False
        found = [*self.promises.broken(self.accepted), *self.claims.broken]
        assert not found, "\n".join(found)
        self._sound = True

    def teardown(self) -> None:
        try:
            if self._sound:
                self._come_to_rest()
        finally:
            for worker in self._home.workers if self.house else ():
                worker.die()
            if self.house is not None:
                self.house.close()
            self.stand.close()
            self._close_database()

    def _come_to_rest(self) -> None:
        """Everything is well from now on: nothing may be left over, and nothing may be broken on the way."""
        self._home.platform.script.clear()
        for daemon in self._home.daemons.values():
            daemon.refuses = 0
        for worker in self._home.workers:
            worker.die()
        self._bury()
        left = ["nothing was looked at"]
        for _ in range(_PASSES):
            for number, worker in enumerate(self._home.workers):
                worker.start()
                for which in tasks.SWEEPS:
                    self._sweep(worker, which, None)
                self._notice_exits(number, None)
            self._hear_all()
            for agent in self._agents():
                agent.beat()
                agent.claim()
                agent.finish("answer")
                self._notice(agent)
            self._hear_all()
            self._give_up_what_is_held()
            self.nothing_is_broken()
            left = self.promises.left_over()
            if not left:
                break
            self.stand.clock.advance(7)
        assert not left, "at rest:\n" + "\n".join(left)
        damaged = list(self.promises.damaged())
        assert not damaged, "\n".join(damaged)

    def _hear_all(self) -> None:
        for _ in range(200):
            if not self.bells.rung:
                return
            self._answer(self.bells.rung.pop(0), 0, None)
        raise AssertionError(f"signals that never end: {self.bells.rung}")

    def _give_up_what_is_held(self) -> None:
        worker = self._home.workers[0]
        with self._acting(worker, "", None), worker.db.write() as session:
            for entry in dead.find(session, dead.Wanted()):
                if entry.state == "held":
                    self._settle(session, entry, "discard")

    # Helpers

    @property
    def _home(self) -> House:
        assert self.house is not None
        return self.house

    def _acting(self, worker: Worker, what: str, fault: Drawn) -> Any:
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

    def _daemon_of(self, session_id: str) -> Any:
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

    def __init__(self, machine: Machine, worker: Worker, fault: Fault | None) -> None:
        self._machine, self._block = machine, machine.stand.acting(worker, fault)

    def __enter__(self) -> None:
        self._machine._sound = False
        self._block.__enter__()

    def __exit__(self, *raised: Any) -> bool:
        swallowed = bool(self._block.__exit__(*raised))
        self._machine._bury()
        return swallowed
