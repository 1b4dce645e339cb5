"""The guards that keep the promises, each with the edit that removes it and the tests that must go red then."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Guard:
    """`old` stands once in `file`; with `new` in its place the guard is gone. `tests` are pytest's arguments."""

    name: str
    promise: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


GUARDS = (
    Guard(
        "an accepted message is known again",
        "I1",
        "migrations/versions/0001_first_release.py",
        '"digest", name="uq_inbound_events_identity"',
        '"digest", "id", name="uq_inbound_events_identity"',
        ("tests/unit/intake",),
    ),
    Guard(
        "the sweep signals again what was lost",
        "I1",
        "nanotasks/sweep/lost.py",
        '    signals: list[Signal] = [("route", *chat) for chat in chats]\n',
        "    return []\n",
        ("tests/unit/sweep",),
    ),
    Guard(
        "a bell is taken off before the first read",
        "I1",
        "nanotasks/signals.py",
        "  redis.call('DEL', KEYS[3])\n  redis.call('ZREM'",
        "  redis.call('ZREM'",
        ("tests/integration/test_signals.py",),
    ),
    Guard(
        "a turn ends in one transaction",
        "I2",
        "container/agent_runner/ledger.py",
        '            self._outbound.acknowledge(change.claimed, "processing")\n',
        '            self._outbound._db.execute("COMMIT")\n            self._outbound._db.execute("BEGIN IMMEDIATE")\n'
        '            self._outbound.acknowledge(change.claimed, "processing")\n',
        ("tests/faults/test_points.py", "-k", "turn.before_end"),
    ),
    Guard(
        "an attempt is written before its send",
        "I2",
        "nanotasks/deliver/ledger.py",
        "        connection.execute(\n            _INSERT_ATTEMPT,\n",
        "        None and connection.execute(\n            _INSERT_ATTEMPT,\n",
        ("tests/unit/deliver",),
    ),
    Guard(
        "an outcome is recorded by its own claim only",
        "I2",
        "nanotasks/deliver/ledger.py",
        '        _row.state == "sending",\n        _row.attempts == bindparam("number_made"),\n'
        '        _row.sending_owner == bindparam("owner"),\n',
        "",
        ("tests/unit/deliver", "tests/integration/test_delivery.py"),
    ),
    Guard(
        "a row stands in the ledger once",
        "I2",
        "migrations/versions/0001_first_release.py",
        'sa.UniqueConstraint("session_id", "message_out_id", ',
        'sa.UniqueConstraint("id", "session_id", "message_out_id", ',
        ("tests/unit/central/test_schema.py",),
    ),
    Guard(
        "a lane waits for the row that is tried again",
        "I3",
        "nanotasks/deliver/ledger.py",
        '            in_states("other", "retrying"),\n',
        '            in_states("other", "held"),\n',
        ("tests/unit/deliver",),
    ),
    Guard(
        "a seq is taken in an immediate transaction",
        "I4",
        "nanotasks/session/schema/inbound_queries.sql",
        "BEGIN IMMEDIATE",
        "BEGIN DEFERRED",
        ("tests/unit/session",),
    ),
    Guard(
        "the mutex is looked at once more after its release",
        "I5",
        "nanotasks/wake/service.py",
        "        return _should_run(here, facts) and facts.is_due(now_ms())\n",
        "        return False\n",
        ("tests/unit/wake", "tests/integration/test_wake.py"),
    ),
    Guard(
        "a lease is renewed under its epoch",
        "I5",
        "nanotasks/central/leases.py",
        "            .where(Lease.name == held.name, Lease.owner == held.owner, Lease.epoch == held.epoch)\n"
        "            .values(expires_at=db",
        "            .where(Lease.name == held.name, Lease.owner == held.owner)\n            .values(expires_at=db",
        ("tests/unit/central/test_leases.py",),
    ),
    Guard(
        "a session is due before its row is written",
        "I1",
        "nanotasks/wake/due.py",
        '        connection.execute(_ANNOUNCE, {"of_session": session_id, "due_ms": due_ms})\n',
        "        pass\n",
        ("tests/unit/wake", "tests/unit/deliver"),
    ),
    Guard(
        "a due time is raised by compare-and-set only",
        "I1",
        "nanotasks/wake/due.py",
        ', _sessions.c.due_version == bindparam("seen_version"))',
        ")",
        ("tests/unit/wake",),
    ),
    Guard(
        "a dead owner's lease is void at once",
        "I9",
        "nanotasks/central/leases.py",
        "row.owner is None or row.expires_at <= now or _is_dead(row.owner, owner.host)",
        "row.owner is None or row.expires_at <= now",
        ("tests/unit/central/test_leases.py",),
    ),
    Guard(
        "what nobody takes over is freed",
        "I9",
        "nanotasks/sweep/containers.py",
        "        leases.free_abandoned(here.db, here.owner)\n",
        "",
        ("tests/integration/test_sweep_containers.py", "-k", "dead_processes"),
    ),
    Guard(
        "a message that agents die of is asked alone",
        "I1",
        "container/agent_runner/batching.py",
        "    return row.tries >= SUSPECT_TRIES\n",
        "    return False\n",
        ("tests/faults/test_points.py", "-k", "bury.after_reset"),
    ),
    Guard(
        "an agent looks for its host before it commits",
        "I5",
        "container/agent_runner/outbound.py",
        "            host_lease.require()\n",
        "",
        ("tests/unit/runtimes/test_host_lease.py",),
    ),
    Guard(
        "an agent of before a silence ends",
        "I5",
        "container/agent_runner/host_lease.py",
        "        if self._since_ms > self._began_ms:\n",
        "        if False:\n",
        ("tests/unit/runtimes/test_host_lease.py",),
    ),
    Guard(
        "no start is entered for a group that has moved",
        "I5",
        "nanotasks/wake/instances.py",
        " != here.host_id:\n            raise",
        " is None:\n            raise",
        ("tests/unit/agents/test_moving.py", "-k", "no_start and sqlite"),
    ),
    Guard(
        "whose session it is is asked again under the mutex",
        "I5",
        "nanotasks/wake/service.py",
        " or _home_of(facts) != here.host_id:\n                return _turned_away",
        ":\n                return _turned_away",
        ("tests/unit/agents/test_moving.py", "-k", "left_alone and sqlite"),
    ),
)
