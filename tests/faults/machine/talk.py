"""Steps: signals are heard or lost, messages come in, agents live, answer and die."""

from __future__ import annotations

from hypothesis import strategies as st

from nanotasks.wake import service as wake
from tests.faults.machine import tasks
from tests.faults.machine.game import Drawn, Faults, Game, Numbers, step
from tests.faults.machine.house import CHATS, ENDS, POISON

_TEXTS = ("hello", "hello", "hello bert", "hello bert", POISON)


class Talk(Game):
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

    # Messages come in

    @step(weight=2, worker=Numbers, chat=Numbers, words=st.sampled_from(_TEXTS), fault=Faults)
    def somebody_writes(self, worker: int, chat: int, words: str, fault: Drawn) -> None:
        self._say(self._some(worker), chat, words, fault)

    @step(when=lambda self: self.said, worker=Numbers, which=Numbers)
    def the_platform_sends_again(self, worker: int, which: int) -> None:
        self._accept(self._some(worker), self.said[which % len(self.said)], None)

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
