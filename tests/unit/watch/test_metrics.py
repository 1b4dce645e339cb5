"""The metrics say what was done, in the format and by the names that are promised."""

from __future__ import annotations

import re
import subprocess
import sys
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, select, text, update

from nanotasks.central import Database, figures, leases
from nanotasks.central.deliveries import Delivery
from nanotasks.central.events import InboundEvent, InboundRoute
from nanotasks.central.hosts import Host, Instance
from nanotasks.central.meta import record
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import PermanentError, TransientError
from nanotasks.clock import now_ms
from nanotasks.deliver.ledger import Ledger
from nanotasks.deliver.service import deliver_session
from nanotasks.domain.delivery import Failure, Verdict
from nanotasks.owners import this_owner
from nanotasks.settings import Settings
from nanotasks.sweep import ticks
from nanotasks.sweep.hosts import heartbeat, mark_silent
from nanotasks.testing import ScriptedSender, wait_for
from nanotasks.watch.catalogue import BY_NAME, METRICS, SERIES_SHOWN
from nanotasks.watch.exposition import exposition
from nanotasks.watch.fold import fold
from tests.scene import HOST, Bells, Speaker, Stage
from tests.unit.watch.reading import figures_of
from tests.unit.watch.scheduled import run


def fold_all(db: Database) -> bool:
    """Count everything there is; what comes next is of a later millisecond."""
    folded, folded_at = fold(db, lag_ms=0), now_ms()
    wait_for(lambda: now_ms() > folded_at)
    return folded


def deliver(andy: Speaker, bells: Bells) -> None:
    deliver_session(andy.stage.db, andy.stage.settings, andy.id, bells=bells)


def test_names_are_those_of_the_catalogue(central: Database) -> None:
    """Every metric is printed with its type and meaning, and nothing else is; names follow the conventions."""
    found = {family.name: family for family in text_string_to_metric_families(exposition(central))}
    assert {name if found[name].type != "counter" else f"{name}_total" for name in found} == set(BY_NAME)
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.type, metric.meaning)
        assert metric.name.endswith("_total") == (metric.type == "counter"), metric.name
        assert metric.name.endswith("_seconds") == (metric.unit == "seconds"), metric.name
        assert re.fullmatch(r"nanotasks(_[a-z]+)+", metric.name)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_a_delivery_and_its_turn_are_measured(andy: Speaker, sender: ScriptedSender, bells: Bells) -> None:
    """A message of five seconds ago that is answered and delivered now is in the histograms, once each."""
    db = andy.stage.db
    andy.hear("m1:ag-andy")
    appended_at = now_ms() - 5_000
    with db.write() as session:
        session.execute(update(InboundEvent).values(received_at=appended_at - 200))
        session.execute(update(InboundRoute).values(appended_at=appended_at))
    andy.say("first", in_reply_to="m1:ag-andy")
    andy.say("second", in_reply_to="m1:ag-andy")
    deliver(andy, bells)
    assert fold_all(db)
    seen = figures_of(db)
    assert seen["accept_seconds_count", ()] == 1
    assert seen["accept_seconds_sum", ()] == pytest.approx(0.2)
    assert seen["accept_seconds_bucket", ("0.1",)] == 0
    assert seen["accept_seconds_bucket", ("0.25",)] == 1
    assert seen["accept_seconds_bucket", ("+Inf",)] == 1
    assert seen["turn_seconds_count", ()] == 1
    assert 5 <= seen["turn_seconds_sum", ()] < 15
    assert seen["deliver_seconds_count", ()] == 2
    assert seen["attempts_total", ("delivered",)] == 2
    assert seen["deliveries", ("pending",)] == 0
    andy.ack("completed", "m1:ag-andy")
    deliver(andy, bells)
    assert fold_all(db)
    assert figures_of(db)["messages_total", ("answered",)] == 1


def test_a_wake_is_measured(andy: Speaker) -> None:
    """From the record of the start until it runs; a start that is adopted or fails is none."""
    db, now = andy.stage.db, now_ms()
    for number, running_at in enumerate((now - 200, None)):
        with db.write() as session:
            session.add(
                Instance(
                    id=f"i{number}",
                    session_id=andy.id,
                    agent_group_id=andy.agent_id,
                    host_id=HOST,
                    runtime="process",
                    epoch=1,
                    started_at=now - 1000,
                    running_at=running_at,
                    ended_at=now if number == 0 else None,
                )
            )
    fold_all(db)
    seen = figures_of(db)
    assert (seen["wake_seconds_count", ()], seen["wake_seconds_sum", ()]) == (1, pytest.approx(0.8))
    assert seen["instances", (HOST,)] == 1


def test_every_row_counts_once_whoever_folds(andy: Speaker, sender: ScriptedSender, bells: Bells) -> None:
    """Folding again, from several threads at once, or after an operator's retry changes no figure that stands."""
    db = andy.stage.db
    andy.say(*(f"text {number}" for number in range(20)))
    deliver(andy, bells)
    threads = [threading.Thread(target=fold, args=(db,), kwargs={"lag_ms": 0}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fold_all(db)
    assert figures_of(db)["deliver_seconds_count", ()] == 20
    with db.write() as session:
        session.execute(text("DELETE FROM delivery_attempts"))
    fold_all(db)
    assert figures_of(db)["deliver_seconds_count", ()] == 20


def test_rows_that_are_too_fresh_wait_for_the_next_fold(andy: Speaker, sender: ScriptedSender, bells: Bells) -> None:
    """Others may still commit beside them; the age of the fold says how far the figures are behind."""
    db = andy.stage.db
    andy.say("now")
    deliver(andy, bells)
    assert fold(db)
    seen = figures_of(db)
    assert seen["deliver_seconds_count", ()] == 0
    assert 10 <= seen["fold_age_seconds", ()] < 20
    assert fold_all(db)
    assert figures_of(db)["deliver_seconds_count", ()] == 1


def test_retrying_and_dead_are_told_by_class(andy: Speaker, sender: ScriptedSender, bells: Bells) -> None:
    """A transient failure waits, a permanent one is dead until an operator puts it aside."""
    db = andy.stage.db
    sender.fail("flaky", TransientError("busy"))
    sender.fail("refused", PermanentError("too long"))
    andy.say("flaky", to="family")
    andy.say("refused", to="other")
    deliver(andy, bells)
    assert nonzero(db, "retrying") == {("transient", "delivery"): 1}
    assert nonzero(db, "dead") == {("permanent", "delivery"): 1}
    with db.write() as session:
        for one in session.scalars(select(Delivery.id)).all():
            record(session, "os:test", "dead.discard", one, {})
    assert nonzero(db, "dead") == {}


def nonzero(db: Database, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (one, labels), value in figures_of(db).items() if one == name and value}


def test_what_waits_longest_is_told_by_kind(andy: Speaker, stage: Stage) -> None:
    """Since it was due, not since it was written; nothing waits: zero."""
    db, now = stage.db, now_ms()
    assert {value for key, value in figures_of(db).items() if key[0] == "oldest_due_seconds"} == {0}
    andy.hear("m1:ag-andy")
    with db.write() as session:
        session.execute(update(InboundRoute).values(state="pending", created_at=now - 20_000))
        session.execute(update(InboundEvent).values(state="pending", received_at=now - 30_000))
        session.execute(update(AgentSession).values(next_due_at=now - 40_000))
        session.add(
            Delivery(
                id="d",
                session_id=andy.id,
                agent_group_id=andy.agent_id,
                message_out_id="m",
                seq=1,
                lane="l",
                kind="chat",
                content="{}",
                state="retrying",
                created_at=now - 90_000,
                next_attempt_at=now - 50_000,
            )
        )
        run(session, andy, state="planned", due_at=now - 60_000)
    seen = figures_of(db)
    ages = {kind: seen["oldest_due_seconds", (kind,)] for kind in ("intake", "append", "wake", "delivery", "run")}
    assert ages == {
        "intake": pytest.approx(30, abs=9),
        "append": pytest.approx(20, abs=9),
        "wake": pytest.approx(40, abs=9),
        "delivery": pytest.approx(50, abs=9),
        "run": pytest.approx(60, abs=9),
    }


def test_missed_runs_are_told_by_series(andy: Speaker) -> None:
    """Those of the series with the most, and only so many."""
    with andy.stage.db.write() as session:
        for number in range(SERIES_SHOWN + 5):
            run(session, andy, f"s{number:03}", state="ended", outcome="missed", finished_at=now_ms())
        run(session, andy, "s104", at=2, state="ended", outcome="missed", finished_at=now_ms())
        run(session, andy, "s104", at=3, state="ended", outcome="succeeded", finished_at=now_ms())
    fold_all(andy.stage.db)
    seen = figures_of(andy.stage.db)
    missed = {key[1][0]: value for key, value in seen.items() if key[0] == "missed_runs"}
    assert len(missed) == SERIES_SHOWN and missed["s104"] == 2
    assert seen["runs_total", ("missed",)] == SERIES_SHOWN + 6
    assert seen["runs_total", ("succeeded",)] == 1


def test_a_finish_that_came_too_late_is_counted(andy: Speaker, sender: ScriptedSender) -> None:
    """A send whose row was recovered meanwhile, and a lease that is another's by now."""
    db = andy.stage.db
    andy.say("slow")
    deliver_session(db, andy.stage.settings, andy.id, bells=Bells())
    with db.write() as session:
        session.execute(update(Delivery).values(state="pending", finished_at=None, next_attempt_at=0))
    ledger = Ledger(db, this_owner(HOST), overdue_ms=1000)
    claim = ledger.claim_head(andy.stage.deliveries()[0].lane)
    assert claim is not None
    with db.write() as session:
        session.execute(update(Delivery).values(attempts=Delivery.attempts + 1))
    ledger.finish_failed(claim, Failure("transient", "late"), lambda _past: Verdict("retrying", 1), go_on=False)
    held = leases.claim(db, "session:x", this_owner(HOST), 60)
    assert held is not None
    assert leases.release(db, held)
    assert not leases.renew(db, held, 60)
    figures.write_notes()
    seen = figures_of(db)
    assert seen["stale_writes_total", ("delivery",)] == 1
    assert seen["stale_writes_total", ("lease",)] == 1


def test_notes_are_written_by_themselves(sqlite_central: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever notes something need not do more; many notes are one transaction."""
    monkeypatch.setattr(figures, "LATER_S", 0.05)
    commits = []
    event.listen(sqlite_central.engine, "commit", lambda _connection: commits.append(1))
    for _ in range(100):
        figures.noted(sqlite_central, "stale_writes", "lease")
    timer = figures._notes.timer
    assert timer is not None
    timer.join(10)
    assert figures_of(sqlite_central)["stale_writes_total", ("lease",)] == 100
    assert len([one for one in commits if one]) <= 2


def test_notes_leave_with_a_process_that_ends(sqlite_central: Database) -> None:
    """Even one that ends right after it noted something."""
    code = (
        "from nanotasks.central import Database, figures; import sys;"
        "figures.noted(Database(sys.argv[1]), 'stale_writes', 'lease')"
    )
    subprocess.run([sys.executable, "-c", code, str(sqlite_central.url)], check=True)
    assert figures_of(sqlite_central)["stale_writes_total", ("lease",)] == 1


def test_leases_ticks_hosts_and_canaries(stage: Stage) -> None:
    """How many are held, how old they are, which are up; what a host that is down had is not shown."""
    db = stage.db
    leases.claim(db, "session:a", this_owner(HOST), 60)
    leases.claim(db, "session:b", this_owner(HOST), 60)
    leases.claim(db, f"sweep.containers:{HOST}", this_owner(HOST), 60)
    ticks.claim(db, "sweep.due", 5)
    figures.canary_heard(db, f"worker-1@{HOST}", HOST)
    figures.canary_heard(db, f"worker-1@{HOST}", HOST)
    heartbeat(db, Settings(host_id="gone"))
    figures.canary_heard(db, "worker-1@gone", "gone")
    with db.write() as session:
        session.execute(update(Host).where(Host.id == "gone").values(heartbeat_at=0))
    assert mark_silent(db, stage.settings) == ["gone"]
    seen = figures_of(db)
    assert (seen["leases", ("session",)], seen["leases", ("sweep.containers",)]) == (2, 1)
    assert 0 <= seen["tick_age_seconds", ("sweep.due",)] < 5
    assert (seen["hosts", ("up",)], seen["hosts", ("draining",)], seen["hosts", ("down",)]) == (1, 0, 1)
    assert [key for key in seen if key[0] == "canary_age_seconds"] == [("canary_age_seconds", (f"worker-1@{HOST}",))]


def test_a_scrape_stays_cheap(sqlite_central: Database) -> None:
    """No query of a scrape or of a fold reads a whole table of those that grow with the messages."""
    seen: list[tuple[str, object]] = []
    event.listen(
        sqlite_central.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, parameters, *_rest: seen.append((statement, parameters)),
    )
    exposition(sqlite_central)
    fold_all(sqlite_central)
    queries = [one for one in seen if one[0].startswith("SELECT")]
    grown = ("inbound_events", "inbound_routes", "deliveries", "delivery_attempts", "task_runs", "instances", "drops")
    assert len(queries) > 20
    with sqlite_central.read() as session:
        for statement, parameters in queries:
            plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[arg-type]
            for row in plan:
                scanned = re.match(rf"SCAN ({'|'.join(grown)})\b(?! USING (COVERING )?INDEX)", row[3])
                assert not scanned, f"{row[3]}:\n{statement}"
