"""Steps: sends that take long, end in every way, or go on when others have taken over."""

from __future__ import annotations

from hypothesis import strategies as st

from nanotasks.deliver import calls, lanes
from nanotasks.deliver.entry import Entry
from nanotasks.deliver.facts import begin_round
from nanotasks.deliver.ledger import Claim
from tests.faults.machine.game import Game, Numbers, step
from tests.faults.machine.house import ENDS
from tests.faults.machine.workers import Worker


class Sends(Game):
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
