"""Which commits of an agent are worth a round of delivery."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanotasks.deliver.glance import Glance, glance, is_worth_a_round
from nanotasks.session import SessionFolder
from nanotasks.session.outbound import ReadLimits

IDLE = Glance(3, frozenset())
BUSY = Glance(3, frozenset({"a"}))


@pytest.mark.parametrize(
    ("before", "now", "worth"),
    [
        (IDLE, BUSY, False),  # a turn begins
        (BUSY, Glance(3, frozenset({"a", "b"})), False),  # a follow-up joins it
        (BUSY, BUSY, False),  # a tool began or ended
        (BUSY, Glance(5, frozenset({"a"})), True),  # a message in mid-turn
        (BUSY, IDLE, True),  # the turn is over, without a message
        (Glance(3, frozenset({"a", "b"})), BUSY, True),  # one of two is answered
        (IDLE, IDLE, True),  # claimed and acked between two glances
        (None, BUSY, True),  # nothing is known of before
        (BUSY, None, True),  # the file cannot be read
    ],
)
def test_only_what_begins_work_is_passed_over(before: Glance | None, now: Glance | None, worth: bool) -> None:
    """Whatever may have ended something is worth a round."""
    assert is_worth_a_round(before, now) is worth


@pytest.fixture
def folder(tmp_path: Path) -> SessionFolder:
    made = SessionFolder.of(tmp_path, "ag", "s1")
    made.create()
    return made


@pytest.fixture
def agent(folder: SessionFolder) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(folder.outbound_db, isolation_level=None)
    yield connection
    connection.close()


def test_a_glance_shows_messages_and_claims(folder: SessionFolder, agent: sqlite3.Connection) -> None:
    """Claims are what is `processing`; completed acks are none."""
    assert glance(folder, ReadLimits()) == Glance(0, frozenset())
    agent.execute("INSERT INTO processing_ack VALUES ('a', 'processing', datetime('now'))")
    agent.execute("INSERT INTO processing_ack VALUES ('b', 'completed', datetime('now'))")
    agent.execute(
        "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES ('m', 3, datetime('now'), 'chat', '{}')"
    )
    assert glance(folder, ReadLimits()) == Glance(1, frozenset({"a"}))


def test_a_file_that_cannot_be_read_shows_nothing(folder: SessionFolder) -> None:
    """The round of delivery will say what is wrong with it."""
    folder.outbound_db.unlink()
    folder.outbound_db.write_bytes(b"not a database, but long enough to be one" * 100)
    assert glance(folder, ReadLimits()) is None
