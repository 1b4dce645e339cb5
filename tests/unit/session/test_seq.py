"""Sequence numbers (promise I4): the host's even, the runner's odd, unique, and above all that was read."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanotasks.session import SessionFolder, open_inbound
from nanotasks.session.inbound import MAX_SEQ_LEAD
from nanotasks.session.rows import NewRow
from tests.unit.session.conftest import Runner

CASES = json.loads((Path(__file__).parents[2] / "data" / "seq.json").read_text())["cases"]


def append(folder: SessionFolder, *ids: str) -> list[int]:
    with open_inbound(folder) as opened:
        return list(opened.insert([NewRow(one, "chat", "{}", 0) for one in ids]).seqs.values())


def speak(folder: SessionFolder, name: str) -> int:
    """A runner's allocation: the smallest odd number above both files' maxima."""
    connection = sqlite3.connect(folder.outbound_db)
    connection.execute("ATTACH ? AS inbound", (str(folder.inbound_db),))
    (highest,) = connection.execute(
        "SELECT max(coalesce((SELECT max(seq) FROM messages_out), 0), coalesce((SELECT max(seq) FROM messages_in), 0))"
    ).fetchone()
    seq: int = highest + 1 + highest % 2
    connection.execute(
        "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES (?, ?, 't', 'chat', '{}')", (name, seq)
    )
    connection.commit()
    connection.close()
    return seq


INTO_INBOUND = "INSERT INTO messages_in (id, seq, timestamp, kind, content) VALUES (?1, ?1, 't', 'chat', '{}')"
INTO_OUTBOUND = "INSERT INTO messages_out (id, seq, timestamp, kind, content) VALUES (?1, ?1, 't', 'chat', '{}')"


def preset(path: Path, statement: str, seqs: list[int]) -> None:
    connection = sqlite3.connect(path)
    connection.executemany(statement, [(seq,) for seq in seqs])
    connection.commit()
    connection.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "".join(op[0] for op in case["ops"]))
def test_recorded_interleavings(folder: SessionFolder, case: dict[str, Any]) -> None:
    """The numbers are NanoClaw 2's until its host, which did not look at the runner's, fell behind; then ours go on."""
    existing = case.get("existing", {"inbound": [], "outbound": []})
    preset(folder.inbound_db, INTO_INBOUND, existing["inbound"])
    preset(folder.outbound_db, INTO_OUTBOUND, existing["outbound"])
    highest = max([0, *existing["inbound"], *existing["outbound"]])
    in_step = True
    for number, (op, recorded) in enumerate(zip(case["ops"], case["seqs"], strict=True)):
        seq = speak(folder, f"m{number}") if op == "container" else append(folder, f"m{number}")[0]
        in_step = in_step and recorded > highest
        assert seq == recorded if in_step else seq - highest in (1, 2)
        assert seq % 2 == recorded % 2
        highest = seq


def test_a_batch_gets_consecutive_even_numbers(folder: SessionFolder) -> None:
    """2, 4, 6; above a runner's 7 comes 8."""
    assert append(folder, "a", "b", "c") == [2, 4, 6]
    assert speak(folder, "o") == 7
    assert append(folder, "d", "e") == [8, 10]


OPERATIONS = st.lists(
    st.one_of(st.just(None), st.lists(st.integers(0, 9).map("m{}".format), min_size=1, max_size=4)), max_size=20
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_any_interleaving_keeps_the_promise(tmp_path: Path, operations: list[list[str] | None]) -> None:
    """Host and runner append in turn, ids repeat: each id once, right parity, no number twice, always larger."""
    folder = SessionFolder(Path(tempfile.mkdtemp(dir=tmp_path)))
    folder.create()
    highest = 0
    seen: set[str] = set()
    for number, ids in enumerate(operations):
        if ids is None:
            seqs = [speak(folder, f"o{number}")]
            assert seqs[0] % 2 == 1
        else:
            seqs = append(folder, *ids)
            assert len(seqs) == len(set(ids) - seen)
            seen |= set(ids)
            assert all(seq % 2 == 0 for seq in seqs)
        assert seqs == sorted(set(seqs)) and all(seq > highest for seq in seqs)
        highest = max([highest, *seqs])
    with sqlite3.connect(folder.inbound_db) as connection:
        stored = [one for (one,) in connection.execute("SELECT id FROM messages_in")]
    connection.close()
    assert sorted(stored) == sorted(seen)


def test_writers_that_meet_take_no_number_twice(folder: SessionFolder) -> None:
    """Eight of them append at once."""
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda name: append(folder, f"{name}-a", f"{name}-b"), range(24)))
    assert sorted(itertools.chain(*batches)) == list(range(2, 98, 2))


@pytest.mark.parametrize("forged", [2**62 + 1, 2**63 - 1, MAX_SEQ_LEAD + 1, -(2**62)])
def test_a_forged_seq_does_not_carry_the_host_away(folder: SessionFolder, runner: Runner, forged: int) -> None:
    """A number far ahead is passed over, the honest ones below it are not."""
    runner.say("honest", seq=41)
    runner.say("forged", seq=forged)
    assert append(folder, "a", "b") == [42, 44]


def test_a_lead_that_could_be_honest_is_followed(folder: SessionFolder, runner: Runner) -> None:
    """An agent may say much before it is told anything."""
    runner.say("o", seq=MAX_SEQ_LEAD - 1)
    assert append(folder, "a") == [MAX_SEQ_LEAD]


@pytest.mark.parametrize("seq", ["99", b"99", 99.5, None])
def test_a_seq_of_another_type_counts_for_nothing(folder: SessionFolder, runner: Runner, seq: object) -> None:
    """Only integers are numbers."""
    runner.replace_file("CREATE TABLE messages_out (id, seq, timestamp, kind, content)")
    preset(folder.outbound_db, INTO_OUTBOUND, [seq])  # type: ignore[list-item]
    assert append(folder, "a") == [2]


def test_an_unreadable_outbound_db_does_not_stop_the_host(folder: SessionFolder) -> None:
    """Parity keeps the numbers unique without it."""
    folder.outbound_db.write_bytes(b"garbage" * 1000)
    assert append(folder, "a", "b") == [2, 4]
    folder.outbound_db.unlink()
    assert append(folder, "c") == [6]


def test_a_locked_outbound_db_does_not_stop_the_host(folder: SessionFolder) -> None:
    """An agent that keeps its file locked delays an append by a quarter of a second."""
    holder = sqlite3.connect(folder.outbound_db)
    holder.execute("BEGIN EXCLUSIVE")
    assert append(folder, "a") == [2]
    holder.close()
