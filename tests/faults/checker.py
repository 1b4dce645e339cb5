"""What was said, what should have come of it, and whether it did: the ledger that the system knows nothing of.

The checker joins that ledger with what reached the platform and with the databases, which it reads with plain SQL of
its own. Every violation is a line that names the promise.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanotasks.runtimes.select import runtime
from nanotasks.settings import Settings
from tests.faults.platform import Arrival

UNANSWERED = "Sorry, your message could not be answered."


@dataclass(frozen=True)
class Said:
    """One accepted message: the texts that must be delivered for it, and how its route ends.

    What an agent sends with a tool goes out before its turn is over, so it may overtake (`by_tool`).
    """

    message_id: str
    chat: str
    text: str
    replies: tuple[str, ...]
    ends: str = "answered"
    by_tool: bool = False


@dataclass
class Ledger:
    """Everything that was said in one case, in the order of acceptance of each chat."""

    said: list[Said] = field(default_factory=list)

    @property
    def chats(self) -> set[str]:
        return {one.chat for one in self.said}


class Checker:
    """Reads one installation on SQLite from outside."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.data_dir / "central.db"
        self._agents = runtime(settings)

    def unfinished(self, ledger: Ledger) -> str:
        """What the messages still wait for; empty when nothing does."""
        with self._central() as db:
            ended = {
                (row["platform_id"], row["platform_message_id"])
                for row in db.execute(
                    "SELECT e.platform_id, e.platform_message_id FROM inbound_events e JOIN inbound_routes r"
                    " ON r.event_id = e.id WHERE r.state IN ('answered', 'completed', 'dead')"
                )
            }
            waiting = [one.message_id for one in ledger.said if (one.chat, one.message_id) not in ended]
            if waiting:
                return f"{len(waiting)} messages have not ended, the first is {waiting[0]}"
            return self._unrest(db)

    def _unrest(self, db: sqlite3.Connection) -> str:
        for what, query in (
            ("events to be routed", "SELECT count(*) FROM inbound_events WHERE state = 'pending'"),
            ("routes to be ended", "SELECT count(*) FROM inbound_routes WHERE state IN ('pending', 'appended')"),
            (
                "open deliveries",
                "SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sending', 'retrying', 'parked')",
            ),
            (
                "unprojected deliveries",
                "SELECT count(*) FROM deliveries WHERE projected_at IS NULL AND state IN ('delivered', 'dead')",
            ),
            ("held mutexes", "SELECT count(*) FROM leases WHERE owner IS NOT NULL AND name LIKE 'session:%'"),
            ("due sessions", "SELECT count(*) FROM sessions WHERE next_due_at IS NOT NULL"),
        ):
            count = db.execute(query).fetchone()[0]
            if count:
                return f"{count} {what}"
        recorded = {row[0] for row in db.execute("SELECT id FROM instances WHERE ended_at IS NULL")}
        running = {one.instance_id for one in self._agents.list()}
        return f"recorded agents {sorted(recorded)} are not the running ones {sorted(running)}" * (recorded != running)

    def violations(self, ledger: Ledger, arrivals: Sequence[Arrival], *, turns_repeat: bool = False) -> list[str]:
        """Every promise that is broken, of a case that has come to rest.

        Where agents died in mid-turn, `turns_repeat`: what such a turn had sent with a tool is sent again.
        """
        with self._central() as db:
            given_up = _given_up(db, ledger)
            return [
                *_intake(db, ledger, given_up),
                *_deliveries(db, ledger, arrivals, turns_repeat, given_up),
                *_order(ledger, arrivals),
                *_instances(db),
                *self._files(db, ledger, given_up),
                *_integrity(db, "central.db"),
            ]

    def _files(self, db: sqlite3.Connection, ledger: Ledger, given_up: GivenUp) -> Iterator[str]:
        for row in db.execute(
            "SELECT s.id, s.agent_group_id FROM sessions s JOIN messaging_groups m ON m.id = s.messaging_group_id"
            " WHERE m.platform_id IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(ledger.chats)),),
        ):
            folder = self._settings.data_dir / "sessions" / row["agent_group_id"] / row["id"]
            yield from _session_files(folder, keeps_files=row["id"] in given_up.sessions)

    def _central(self) -> closing[sqlite3.Connection]:
        return closing(_opened(self._path))


@dataclass(frozen=True)
class GivenUp:
    """Replies whose sender died twice: recorded as uncertain, sent once more, and then dead, as is promised.

    The texts are (chat, text). What a dead reply answered may end as dead, and its file stays for an operator's retry.
    """

    texts: frozenset[tuple[str, str]]
    chats: frozenset[str]
    sessions: frozenset[str]


def _given_up(db: sqlite3.Connection, ledger: Ledger) -> GivenUp:
    rows = db.execute(
        "SELECT d.platform_id, d.session_id, d.content FROM deliveries d WHERE d.state = 'dead'"
        " AND d.error_class = 'unknown_outcome' AND d.platform_id IN (SELECT value FROM json_each(?))"
        " AND (SELECT count(*) FROM delivery_attempts a WHERE a.delivery_id = d.id"
        "      AND a.outcome = 'unknown_outcome') >= 2",
        (json.dumps(sorted(ledger.chats)),),
    ).fetchall()
    return GivenUp(
        frozenset((row["platform_id"], str(json.loads(row["content"]).get("text", ""))) for row in rows),
        frozenset(row["platform_id"] for row in rows),
        frozenset(row["session_id"] for row in rows),
    )


def _intake(db: sqlite3.Connection, ledger: Ledger, given_up: GivenUp) -> Iterator[str]:
    for one in ledger.said:
        found = db.execute(
            "SELECT e.id, e.state, r.state AS route FROM inbound_events e LEFT JOIN inbound_routes r"
            " ON r.event_id = e.id WHERE e.platform_id = ? AND e.platform_message_id = ?",
            (one.chat, one.message_id),
        ).fetchall()
        if len(found) != 1:
            yield f"I1 {one.message_id} was accepted and has {len(found)} events or routes"
        elif found[0]["route"] != one.ends and not (found[0]["route"] == "dead" and one.chat in given_up.chats):
            yield f"I1 {one.message_id} ended as {found[0]['route']} and not as {one.ends}"


def _deliveries(
    db: sqlite3.Connection, ledger: Ledger, arrivals: Sequence[Arrival], turns_repeat: bool, given_up: GivenUp
) -> Iterator[str]:
    expected = Counter((one.chat, reply) for one in ledger.said for reply in one.replies)
    repeated = {(one.chat, reply) for one in ledger.said if one.by_tool and turns_repeat for reply in one.replies}
    taken: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for arrival in arrivals:
        if arrival.taken:
            by_key = taken[arrival.chat, arrival.text]
            by_key[arrival.key] = by_key.get(arrival.key, 0) + 1
    for (chat, text), times in expected.items():
        came = len(taken[chat, text])
        if came < times and (chat, text) in given_up.texts:
            continue
        if came != times and not (came and (chat, text) in repeated):
            yield f"I2 {text!r} in {chat} came as {came} messages and not as {times}"
    for (chat, text), by_key in taken.items():
        if (chat, text) not in expected and not (text == UNANSWERED and chat in given_up.chats):
            yield f"I2 {text!r} came to {chat} and was not expected"
        for key, times in by_key.items():
            unknown = db.execute(
                "SELECT count(*) FROM delivery_attempts WHERE delivery_id = ? AND outcome = 'unknown_outcome'", (key,)
            ).fetchone()[0]
            if times > 1 + unknown:
                yield f"I2 {text!r} came {times} times to {chat}, and {unknown} sends are recorded as uncertain"


def _order(ledger: Ledger, arrivals: Sequence[Arrival]) -> Iterator[str]:
    for chat in sorted(ledger.chats):
        ours = [one for one in ledger.said if one.chat == chat and one.ends == "answered" and not one.by_tool]
        wanted = [reply for one in ours for reply in one.replies]
        came = list(dict.fromkeys(one.text for one in arrivals if one.chat == chat and one.taken))
        came = [text for text in came if text in wanted]
        if came != [text for text in dict.fromkeys(wanted) if text in came]:
            yield f"I3 {chat} heard {came} and not {wanted}"


def _instances(db: sqlite3.Connection) -> Iterator[str]:
    for row in db.execute(
        "SELECT a.session_id, a.id, b.id AS other FROM instances a JOIN instances b ON b.session_id = a.session_id"
        " AND b.id > a.id AND a.runtime_id IS NOT NULL AND b.runtime_id IS NOT NULL"
        " AND a.started_at < coalesce(b.ended_at, 9e15) AND b.started_at < coalesce(a.ended_at, 9e15)"
        " AND a.epoch = b.epoch"
    ):
        yield f"I5 {row['session_id']} had {row['id']} and {row['other']} at one time, under one epoch"


def _session_files(folder: Path, *, keeps_files: bool = False) -> Iterator[str]:
    files = {"inbound.db": folder / "host" / "inbound.db", "outbound.db": folder / "workspace" / "outbound.db"}
    seqs: list[int] = []
    for name, path in files.items():
        if not path.exists():
            continue
        table = "messages_in" if name == "inbound.db" else "messages_out"
        with closing(_opened(path)) as db:
            own = [row[0] for row in db.execute(f"SELECT seq FROM {table} ORDER BY seq")]  # noqa: S608
            parity = 0 if name == "inbound.db" else 1
            if any(seq % 2 != parity for seq in own):
                yield f"I4 {path} has a seq of the other side"
            seqs += own
            yield from _integrity(db, str(path))
    if len(seqs) != len(set(seqs)):
        yield f"I4 {folder.name} has a seq twice"
    left = sorted(path.name for path in (folder / "workspace" / "outbox").glob("*/*"))
    if left and not keeps_files:
        yield f"I9 {folder.name} has delivered files in its outbox: {left}"


def _integrity(db: sqlite3.Connection, name: str) -> Iterator[str]:
    for pragma in ("integrity_check", "foreign_key_check"):
        problems = [tuple(row) for row in db.execute(f"PRAGMA {pragma}") if tuple(row) != ("ok",)]
        if problems:
            yield f"I10 {name}: {pragma} says {problems[:3]}"


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.row_factory = sqlite3.Row
    return db


def lines(found: Sequence[Any]) -> str:
    """Violations for a person."""
    return "\n".join(f"  {one}" for one in found)
