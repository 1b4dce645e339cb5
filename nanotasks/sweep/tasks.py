"""The sweeps: ticks on the queue `default`, each claimed, then done once; and each worker's canary."""

from __future__ import annotations

from collections import Counter

from nanotasks import faults, signals
from nanotasks.celery_app import app
from nanotasks.central import Database, database, figures, leases
from nanotasks.intake import media
from nanotasks.intake.placement import place_waiting
from nanotasks.settings import settings
from nanotasks.sweep import containers, due, hosts, lost, takeover, ticks
from nanotasks.wake.local import this_host
from nanotasks.watch.fold import fold


@app.task(name="sweep.signals")
def sweep_signals(at_start: bool = False, *_later: object) -> None:
    """Signal again what was accepted or routed and whose signal was lost.

    A worker that begins asks for it `at_start`, whoever swept a moment ago: the one before may have died with a message
    in its hands, and then that signal is lost however young its row is.
    """
    config = settings()
    db = database(config)
    if at_start:
        _ring_again(db, lost.lost_signals(db, config, at_start=True))
    elif ticks.claim(db, "sweep.signals", config.sweep_signals_period_s):
        _ring_again(db, lost.lost_signals(db, config))


@app.task(name="sweep.due")
def sweep_due(at_start: bool = False, *_later: object) -> None:
    """Signal sessions and deliveries that are due, as the net behind every host's own alarm; `at_start` as above."""
    config = settings()
    db = database(config)
    if at_start or ticks.claim(db, "sweep.due", config.sweep_due_period_s):
        _ring_again(db, due.due_signals(db, config, at_start=at_start))


@app.task(name="sweep.hosts")
def sweep_hosts(*_later: object) -> None:
    """Call silent hosts down, empty their queues, move their agent groups where others have the files, tidy up.

    Agent groups whose messages wait for a host get one.
    """
    config = settings()
    db = database(config)
    if ticks.claim(db, "sweep.hosts", config.sweep_hosts_period_s):
        down = hosts.mark_silent(db, config)
        leases.free_of_hosts(db, down)
        for host_id in down:
            signals.forget_host(host_id)
        _ring([ring for moved in takeover.take_over(db, config) for ring in moved.signals])
        with db.write_core() as connection:
            place_waiting(connection, config.sweep_batch)
            before = db.now_ms(connection) - round(config.media_keep_h * 3_600_000)
            media.delete_left_over(connection, before, config.sweep_batch)


@app.task(name="sweep.containers")
def sweep_containers(host_id: str | None = None, *_later: object) -> None:
    """Without a host the tick, which every host at work hears of; with one the pass over that host's agents."""
    config = settings()
    db = database(config)
    if host_id == config.host_id:
        _ring(containers.sweep(this_host(config)))
    elif host_id is None and ticks.claim(db, "sweep.containers", config.sweep_containers_period_s):
        _ring([("containers", one) for one in hosts.hosts_at_work(db)])


@app.task(name="sweep.figures")
def sweep_figures(*_later: object) -> None:
    """Count spans and ends of rows for the metrics."""
    config = settings()
    db = database(config)
    if ticks.claim(db, "sweep.figures", config.sweep_figures_period_s):
        fold(db)


@app.task(name="worker.canary")
def canary(worker: str, *_later: object) -> None:
    """That it arrived is what it says; the metrics tell when."""
    config = settings()
    figures.canary_heard(database(config), worker, config.host_id)


def _ring(found: list[lost.Signal]) -> None:
    if found:
        faults.point("sweep.after_mark")
    for kind, *ids in found:
        signals.ring(kind, *ids, force=True)


def _ring_again(db: Database, found: list[lost.Signal]) -> None:
    """Ring for rows that were signalled before, or should have been, and count it."""
    if found:
        with db.write_core() as connection:
            figures.add(connection, figures.RESIGNALS, Counter(kind for kind, *_ in found))
    _ring(found)
