"""Continuations, the published message, and the tool that runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent_runner.inbound import Inbound
from agent_runner.ledger import Change, Ledger, started
from agent_runner.outbound import REPLYING_TO, Outbound
from agent_runner.providers.contract import Prompt
from agent_runner.rows import NOWHERE, InboundRow
from agent_runner.turns import Batch, merged
from tests.unit.runner.by_hand import SessionByHand


@contextmanager
def opened(session: SessionByHand, provider: str = "Demo") -> Iterator[Ledger]:
    inbound = Inbound(str(session.inbound), str(session.outbound))
    ledger = Ledger(Outbound(str(session.outbound), inbound, create=True), provider)
    ledger.recover()
    yield ledger
    ledger.close()


def batch(*ids: str, triggers: tuple[str, ...] | None = None) -> Batch:
    rows = [InboundRow(i, 2, "chat", "", triggers is None or i in triggers, NOWHERE, "{}") for i in ids]
    return Batch(rows, Prompt(""))


def store(session: SessionByHand, **state: str) -> None:
    rows = [{"key": key.replace("__", ":"), "value": value, "updated_at": ""} for key, value in state.items()]
    session.insert_outbound("session_state", rows)


def test_a_continuation_belongs_to_its_provider(session: SessionByHand) -> None:
    """The name counts in lower case; others are left alone."""
    store(session, continuation__demo="d", continuation__other="o")
    with opened(session) as ledger:
        assert ledger.continuation == "d"
        ledger.commit(Change(forget=True), None)
    with opened(session) as ledger:
        assert ledger.continuation is None
    assert session.state() == {"continuation:other": "o"}


def test_no_continuation_at_first(session: SessionByHand) -> None:
    """Unknown is None."""
    with opened(session) as ledger:
        assert ledger.continuation is None


@pytest.mark.parametrize(("own", "expected"), [(None, "old"), ("new", "new")])
def test_the_legacy_key_is_adopted_once(session: SessionByHand, own: str | None, expected: str) -> None:
    """It always goes, and the provider's own value wins."""
    store(session, sdk_session_id="old", **({"continuation__demo": own} if own else {}))
    for _ in range(2):
        with opened(session) as ledger:
            assert ledger.continuation == expected
        assert session.state() == {"continuation:demo": expected}


def test_a_continuation_is_stored_with_its_turn(session: SessionByHand) -> None:
    """And survives the process."""
    with opened(session) as ledger:
        ledger.commit(Change(completed=["m1"], continuation="c2"), None)
    with opened(session) as ledger:
        assert ledger.continuation == "c2"


def test_recovery_gives_claims_back_and_forgets_the_tool(session: SessionByHand) -> None:
    """What a dead process left must neither hide messages nor excuse its successor."""
    rows = [{"message_id": i, "status": s, "status_changed": ""} for i, s in (("a", "processing"), ("b", "completed"))]
    session.insert_outbound("processing_ack", rows)
    session.insert_outbound(
        "container_state", [{"id": 1, "current_tool": "Bash", "tool_declared_timeout_ms": 600000, "updated_at": ""}]
    )
    store(session, **{REPLYING_TO: "a"})
    with opened(session):
        pass
    assert session.acks() == {"b": "completed"}
    assert session.state() == {}
    (tool,) = session.read("SELECT current_tool, tool_declared_timeout_ms, tool_started_at FROM container_state")
    assert set(tool.values()) == {None}


def test_the_message_being_answered_is_published(session: SessionByHand) -> None:
    """Its first question, in the transaction that claims it; gone when the turn is."""
    current = batch("c1", "q1", "q2", triggers=("q1", "q2"))
    with opened(session) as ledger:
        ledger.commit(Change(claimed=current.ids), current)
        assert session.state() == {REPLYING_TO: "q1"}
        ledger.commit(Change(completed=current.ids), None)
        assert session.state() == {}


def test_sends_of_a_turn_are_noticed(session: SessionByHand) -> None:
    """By whatever process, also while other rows are claimed; they do not count for the next turn."""
    first, second = batch("q1"), batch("q2")
    with opened(session) as ledger:
        ledger.commit(Change(claimed=first.ids), first)
        assert not ledger.sent_in_turn()
        row = {"id": "x", "seq": 7, "timestamp": "", "kind": "chat", "content": "{}"}
        session.insert_outbound("messages_out", [row])
        ledger.commit(Change(claimed=second.ids), first)
        assert ledger.sent_in_turn()
        ledger.commit(Change(completed=first.ids), second)
        assert not ledger.sent_in_turn()


def test_the_running_tool_is_shown(session: SessionByHand) -> None:
    """Name, declared timeout and start; all empty when it ended."""
    query = "SELECT current_tool, tool_declared_timeout_ms, tool_started_at IS NULL AS no_start FROM container_state"
    with opened(session) as ledger:
        ledger.show_tool(started("Bash", 5000))
        assert session.read(query) == [{"current_tool": "Bash", "tool_declared_timeout_ms": 5000, "no_start": 0}]
        ledger.show_tool(None)
        assert session.read(query) == [{"current_tool": None, "tool_declared_timeout_ms": None, "no_start": 1}]


def test_batches_answered_together_are_one() -> None:
    """Rows and overtaken ids of all."""
    one, two = Batch(batch("a").rows, Prompt("x"), ["o1"]), Batch(batch("b").rows, Prompt("y"), ["o2"])
    whole = merged([one, two])
    assert (whole.ids, whole.overtaken) == (["a", "b"], ("o1", "o2"))
    assert merged([one]) is one
