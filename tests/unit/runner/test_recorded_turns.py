"""Whole turns with a scripted provider, against the recorded behaviour of NanoClaw 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.runner.by_hand import SessionByHand, recorded
from tests.unit.runner.conftest import Running, ScriptedProvider

BATCH = recorded("batch")
PARSE = recorded("parse_out")
Start = Callable[..., Running]

COMPARED = (
    "seq",
    "in_reply_to",
    "deliver_after",
    "recurrence",
    "kind",
    "platform_id",
    "channel_type",
    "thread_id",
    "content",
)

# Results whose recorded outcome is a defect: the original delivers what is `internal`, as a block of its own when one
# stands in it, word for word when it stands in a block. By result: what is sent instead, and how often it is nudged.
INTERNAL: dict[str, tuple[list[str], int]] = {
    'text <message to="a <b> & c">hi</message><message to="work"><internal>s</internal></message>': ([""], 0),
    "<message to=\"family\"><internal>s</internal></message><message to='work'>a & b</message>": ([""], 0),
    '<message to="a <b> & c">hi</message><internal><message to="worker-1"><message to="work">n</message>'
    "</internal><message to='nobody'>hi</message><internal>x <b>y</b></internal>": (["hi"], 0),
    '<message to="nobody">x <b>y</b></message><internal><message to="family ">x <b>y</b></message></internal>'
    '<internal><message to="worker-1">two\nlines</message></internal>'
    '<message to="a <b> & c" x="1"></message>': ([], 1),
    '<message  to="a <b> & c" >x <b>y</b><internal><message to="a <b> & c"></message></internal>'
    "<message  to=\"nobody\" > pad <message to='nobody'><internal>s</internal></message>"
    '<internal><message to="worker-1"><internal>s</internal></message></internal>': ([], 1),
    '<message to="nobody" x="1">hi</message><internal><message to="family">two\nlines</message></internal>'
    "<internal>x <b>y</b></internal>": ([], 1),
    '<message to="worker-1">a & b</message><message to="work"><message to="work">n</message>'
    '<message to="family ">"q"</message><internal><message to="worker-1"></message></message></internal>'
    '<message to="family "><internal>s</internal></message>'
    "<internal><internal>s</internal></internal>": (["a & b", '<message to="work">n'], 0),
}


def rows_of(session: SessionByHand) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COMPARED} for row in session.sent()]


def wait_for_acks(session: SessionByHand, expected: list[dict[str, str]]) -> None:
    wanted = {ack["message_id"]: ack["status"] for ack in expected}
    session.wait(lambda: session.acks() == wanted, f"acks {wanted}")


def test_every_intended_difference_is_a_recorded_case() -> None:
    """The list of differences names results that were recorded, each once."""
    assert INTERNAL.keys() <= {case["results"][0] for case in PARSE["cases"]}


@pytest.mark.parametrize("case", PARSE["cases"], ids=lambda c: f"{c['tags'][0]}-{c['destinations']}-{c['rows']}")
def test_recorded_results(session: SessionByHand, start: Start, case: dict[str, Any]) -> None:
    """The same rows, the same nudges, the same acks, but for what was `internal`."""
    session.destinations(*PARSE["header"]["destination_sets"][case["destinations"]])
    session.insert_inbound("messages_in", PARSE["header"]["inbound_sets"][case["rows"]])
    provider = ScriptedProvider(lambda text: [] if text.startswith("<system>") else case["results"])
    expected = case["out"]
    running = start(provider)
    intended = INTERNAL.get(case["results"][0])
    texts, nudged = intended or ([], expected["nudges"])
    session.wait(lambda: bool(session.acks()), "a claim")
    if nudged:
        session.wait(lambda: len(provider.prompts) == 1 + nudged, "a nudge")
        running.stop()
        assert provider.prompts[1].count(expected["nudge_destinations"][0] if not intended else "family, work") == 1
    else:
        wait_for_acks(session, expected["acks"])
        running.stop()
        assert len(provider.prompts) == 1
    if intended:
        assert session.texts() == texts
    else:
        assert rows_of(session) == expected["messages_out"]


@pytest.mark.parametrize("case", BATCH["cases"], ids=lambda c: c["tags"][0])
def test_recorded_first_prompts(session: SessionByHand, start: Start, case: dict[str, Any]) -> None:
    """The same prompt, rows, acks and continuation; where the original stops with an error, the row is prompted."""
    session.insert_inbound("messages_in", case["rows"])
    stamped = [{**ack, "status_changed": "2026-01-01 00:00:00"} for ack in case["acks_before"]]
    session.insert_outbound("processing_ack", stamped)
    provider = ScriptedProvider(
        lambda text: ['<message to="family">ok</message>'], native_commands=case["native_slash_commands"]
    )
    running = start(provider)
    expected = case["out"]
    if "loop_error" in expected:
        session.wait_done(case["rows"][0]["id"])
        assert 'sender="5"' in provider.prompts[0]
        return
    if not expected["prompts"]:
        session.wait(lambda: (session.workspace / ".heartbeat").exists(), "a start")
        running.stop()
    else:
        wait_for_acks(session, expected["acks"])
        running.stop()
    assert provider.prompts == expected["prompts"]
    assert rows_of(session) == expected["messages_out"]
    assert session.state() == {row["key"]: row["value"] for row in expected["session_state"]}
