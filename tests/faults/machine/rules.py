"""The machine: what may happen, in any order, and what is looked at after each step.

A signal that rings is heard by a worker, heard twice, or lost; workers die or fail at any crash point; sends may be
held in mid-air while others work on; the clock jumps. In the end everything is well again, and all must come to rest.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from nanotasks.ops import dead
from tests.faults.machine import tasks
from tests.faults.machine.game import ARGUMENTS, NAMES, STEPS
from tests.faults.machine.house import CHATS, House
from tests.faults.machine.keeping import Keeping
from tests.faults.machine.leases import Claims
from tests.faults.machine.promises import Promises
from tests.faults.machine.sends import Sends
from tests.faults.machine.talk import Talk

_PASSES = 80


class Machine(Talk, Sends, Keeping):
    """See above; the steps stand in the modules that it is made of."""

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

    # What is looked at

    @rule(step=st.sampled_from(NAMES).flatmap(lambda name: st.tuples(st.just(name), ARGUMENTS[name])))
    def happens(self, step: tuple[str, dict[str, Any]]) -> None:
        name, drawn = step
        STEPS[name](self, **drawn)

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
