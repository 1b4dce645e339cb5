"""Steps: leases are taken, kept and lost, operators put their hand to things, workers die, time passes."""

from __future__ import annotations

from hypothesis import strategies as st
from sqlalchemy import select

from nanotasks.central import meta
from nanotasks.central.deliveries import Delivery
from nanotasks.central.sessions import AgentSession
from nanotasks.deliver import operator as deliveries
from nanotasks.errors import ConflictError
from nanotasks.ops import dead
from tests.faults.machine.game import Game, Numbers, step
from tests.faults.machine.leases import Claimed

Verbs = st.sampled_from(("renew", "release"))


class Keeping(Game):
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

    @step(
        weight=5,
        first=Numbers,
        second=Numbers,
        away_s=st.sampled_from((0, 6, 31)),
        how=st.sampled_from(("renew", "release", "dies")),
    )
    def a_holder_was_away(self, first: int, second: int, away_s: int, how: str) -> None:
        """It dies, or goes on with a lease that somebody may have taken since, perhaps itself."""
        self.a_lease_is_taken(first, 0, 5)
        mine = self.claims.held[-1:]
        if how == "dies":
            self.a_worker_dies(first)
        self.a_lease_is_taken(second, away_s, 30)
        if mine and mine[0] in self.claims.held:
            self._keep_or_give_back(mine[0], how)

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
