"""Delivery while processes die and compete: real files, real databases, real processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import update

from nanotasks.central import Database
from nanotasks.central.deliveries import Delivery
from nanotasks.deliver.service import attempt, deliver_session
from nanotasks.testing import ScriptedSender, channel_of
from tests.integration.delivering import capabilities, deliver
from tests.scene import Bells, Speaker, Stage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stage(central: Database, tmp_path: Path) -> Stage:
    return Stage.set_up(central, tmp_path)


@pytest.fixture
def andy(stage: Stage) -> Speaker:
    return stage.session("andy", stage.agent("andy"), stage.chat("family"))


def start(speaker: Speaker, journal: Path, *fate: str) -> subprocess.Popen[str]:
    """A process that is ready to deliver, and begins when it is told to."""
    stage = speaker.stage
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.integration.delivering",
            stage.settings.database_url,
            str(stage.settings.data_dir),
            speaker.id,
            str(journal),
            *fate,
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[int]:
    """Let processes deliver at the same time, and wait for them."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.close()
    codes = [process.wait(60) for process in processes]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    return codes


def arrived(journal: Path) -> list[tuple[str, int]]:
    """Texts and attempts that reached the channel, in order."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [(line["text"], line["attempt"]) for line in map(json.loads, lines)]


def deliver_here(speaker: Speaker, journal: Path) -> None:
    """What the next signal for the session does."""
    with channel_of(ScriptedSender(journal), "scripted", capabilities(journal)):
        deliver(speaker.stage.db, speaker.stage.settings, speaker.id)


def make_due(speaker: Speaker) -> None:
    """Do not wait for the pauses between attempts."""
    with speaker.stage.db.write() as session:
        session.execute(update(Delivery).where(Delivery.state == "retrying").values(state="pending", next_attempt_at=1))


def outcomes(speaker: Speaker, text: str) -> list[str | None]:
    row = next(row for row in speaker.stage.deliveries() if text in row.content)
    return [made.outcome for made in speaker.stage.attempts(row.id)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_killed_send_is_repeated_under_its_key(andy: Speaker, tmp_path: Path, moment: str) -> None:
    """A channel that knows our keys shows the message once, whenever the process died, and in its place."""
    journal = tmp_path / "idempotent.jsonl"
    andy.say("one", "two", "three")
    assert finish([start(andy, journal, moment, "two")]) == [-9]
    assert [row.state for row in andy.stage.deliveries()] == ["delivered", "sending", "pending"]
    deliver_here(andy, journal)
    assert [row.state for row in andy.stage.deliveries()] == ["delivered"] * 3
    assert outcomes(andy, "two") == ["unknown_outcome", "delivered"]
    expected = [("one", 1), ("two", 2), ("three", 1)]
    assert arrived(journal) == (expected if moment == "before" else [("one", 1), ("two", 1), *expected[1:]])
    assert len({line["delivery_id"] for line in map(json.loads, journal.read_text().splitlines())}) == 3


def test_a_killed_send_is_repeated_once_and_recorded_as_uncertain(andy: Speaker, tmp_path: Path) -> None:
    """A channel that knows no keys may show it twice; the attempts say so."""
    journal = tmp_path / "resend.jsonl"
    andy.say("one", "two")
    assert finish([start(andy, journal, "after", "one")]) == [-9]
    deliver_here(andy, journal)
    assert arrived(journal) == [("one", 1), ("one", 2), ("two", 1)]
    assert outcomes(andy, "one") == ["unknown_outcome", "delivered"]


def test_a_send_that_is_killed_twice_is_given_up(andy: Speaker, tmp_path: Path) -> None:
    """Once more is all that a channel without keys gets; the agent is told, and the lane goes on."""
    journal = tmp_path / "resend.jsonl"
    andy.say("one", "two")
    assert finish([start(andy, journal, "after", "one")]) == [-9]
    stage = andy.stage
    sender = ScriptedSender(journal)
    sender.fail("one", TimeoutError())
    with channel_of(sender, "scripted", capabilities(journal)):
        [(_, delivery_id, _, number)] = deliver_session(stage.db, stage.settings, andy.id, bells=Bells()).signals
        assert attempt(stage.db, stage.settings, delivery_id, number, bells=Bells()).state == "dead"
    assert arrived(journal) == [("one", 1), ("two", 1)]
    [(content,)] = andy.inbound("SELECT content FROM messages_in")
    assert "may have arrived" in content


def test_a_killed_send_is_held_where_the_channel_says_so(andy: Speaker, tmp_path: Path) -> None:
    """Nothing is sent twice; an operator decides, and the lane goes on."""
    journal = tmp_path / "hold.jsonl"
    andy.say("one", "two")
    assert finish([start(andy, journal, "after", "one")]) == [-9]
    deliver_here(andy, journal)
    assert arrived(journal) == [("one", 1), ("two", 1)]
    assert [row.state for row in andy.stage.deliveries()] == ["held", "delivered"]


def test_a_text_that_the_database_cannot_hold_is_one_dead_row(andy: Speaker, tmp_path: Path) -> None:
    """PostgreSQL stores no NUL; the rows around it are delivered."""
    journal = tmp_path / "idempotent.jsonl"
    andy.say("one")
    andy.say("nul", id="n\0l", content='{"text":"\0"}')
    andy.say("two")
    deliver_here(andy, journal)
    assert arrived(journal) == [("one", 1), ("two", 1)]
    assert [row.state for row in andy.stage.deliveries()] == ["delivered", "dead", "delivered"]


def test_two_processes_send_each_row_once_and_in_order(andy: Speaker, tmp_path: Path) -> None:
    """However they share the lanes of a session."""
    stage, journal = andy.stage, tmp_path / "resend.jsonl"
    stage.allow(andy.agent_id, "work", "channel", stage.chat("work"))
    for number in range(0, 60, 3):
        andy.say(f"f{number}", f"f{number + 1}", f"f{number + 2}")
        andy.say(f"w{number}", f"w{number + 1}", f"w{number + 2}", to="work")
    assert finish([start(andy, journal) for _ in range(2)]) == [0, 0]
    assert {row.state for row in stage.deliveries()} == {"delivered"}
    texts = [text for text, _ in arrived(journal)]
    assert [text for text in texts if text[0] == "f"] == [f"f{number}" for number in range(60)]
    assert [text for text in texts if text[0] == "w"] == [f"w{number}" for number in range(60)]
    assert len(andy.inbound("SELECT * FROM delivered")) == 120


def test_rows_survive_processes_killed_at_any_moment(andy: Speaker, tmp_path: Path) -> None:
    """None is lost, none is shown twice, and their order holds, wherever the kills fall."""
    journal = tmp_path / "idempotent.jsonl"
    luck = random.Random(7)
    texts = [f"m{number}" for number in range(150)]
    andy.say(*texts)
    for _ in range(5):
        process = start(andy, journal)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(luck.uniform(0.05, 0.4))
        process.kill()
        process.communicate()
    for _ in range(3):
        deliver_here(andy, journal)
        make_due(andy)
    assert {row.state for row in andy.stage.deliveries()} == {"delivered"}
    assert list(dict.fromkeys(text for text, _ in arrived(journal))) == texts
    assert len(andy.inbound("SELECT * FROM delivered WHERE status = 'delivered'")) == 150
    assert all(row.projected_at for row in andy.stage.deliveries())
