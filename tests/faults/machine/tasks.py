"""What the Celery tasks do with a signal, without Celery: the same calls of the services, by a worker of the house."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nanotasks.central import leases
from nanotasks.channels import registry
from nanotasks.deliver import service as deliver
from nanotasks.errors import NanotasksError
from nanotasks.intake.append import append_session
from nanotasks.intake.placement import place_waiting
from nanotasks.intake.service import route_chat
from nanotasks.schedule.project import project
from nanotasks.sweep import containers, due, hosts, lost
from nanotasks.wake import service as wake
from tests.faults.machine.house import refuse_poison
from tests.faults.machine.workers import Worker

Signal = tuple[Any, ...]
SWEEPS = ("signals", "due", "alarm", "containers", "hosts")


class Bells:
    """Signals on their way, one of each; whoever plays decides which is heard, and which is lost."""

    def __init__(self) -> None:
        self.rung: list[Signal] = []

    def ring(self, kind: str, *ids: Any) -> None:
        if (kind, *ids) not in self.rung:
            self.rung.append((kind, *ids))

    def ring_all(self, found: Iterable[Signal]) -> None:
        for kind, *ids in found:
            self.ring(kind, *ids)

    def poke(self, topic: str, payload: Mapping[str, Any] | None = None) -> None:
        """Nobody watches."""

    def wait_for_token(self, bucket: str, rate_per_s: float, burst: float = 1.0) -> float:
        return 0.0


def host_of(signal: Signal) -> str | None:
    """The host that a signal is for; None where any worker may hear it."""
    return None if signal[0] == "route" else signal[2]


def answer(worker: Worker, signal: Signal, bells: Bells) -> None:
    """Do what the task of this signal does."""
    kind, first = signal[0], signal[1]
    if kind == "route":
        _route(worker, first, signal[2], bells)
    elif kind == "append":
        _append(worker, first, bells)
    elif kind == "wake":
        bells.ring_all(wake.wake(worker.here, first).rings)
    elif kind == "deliver":
        bells.ring_all(deliver.deliver_session(worker.db, worker.settings, first, bells=bells).signals)
    elif kind == "attempt":
        bells.ring_all(deliver.attempt(worker.db, worker.settings, first, signal[3], bells=bells).signals)
    elif kind == "project":
        bells.ring_all(project(worker.db, worker.settings, first))
    else:
        raise AssertionError(signal)


def sweep(worker: Worker, which: str, bells: Bells) -> None:
    """One pass, as its tick or this host's alarm makes it."""
    db, config = worker.db, worker.settings
    if which == "signals":
        bells.ring_all(lost.lost_signals(db, config))
    elif which == "due":
        bells.ring_all(due.due_signals(db, config))
    elif which == "alarm":
        bells.ring_all(due.due_signals(db, config, config.host_id))
    elif which == "containers":
        bells.ring_all(containers.sweep(worker.here))
    else:
        hosts.heartbeat(db, config)
        leases.free_of_hosts(db, hosts.mark_silent(db, config))
        with db.write_core() as connection:
            place_waiting(connection, config.sweep_batch)


def _route(worker: Worker, channel_type: str, platform_id: str, bells: Bells) -> None:
    here = worker.settings
    routed = route_chat(
        worker.db,
        here,
        channel_type,
        platform_id,
        capabilities=lambda channel: registry.capabilities(channel, here),
        interceptors=[refuse_poison],
    )
    for touched in routed.touched.values():
        if touched.host_id == here.host_id:
            _append(worker, touched.session_id, bells)
        elif touched.host_id is not None:
            bells.ring("append", touched.session_id, touched.host_id)
    for session_id, host_id in routed.answered.items():
        if host_id is not None:
            bells.ring("deliver", session_id, host_id)
    if routed.more:
        bells.ring("route", channel_type, platform_id)


def _append(worker: Worker, session_id: str, bells: Bells) -> None:
    try:
        done = append_session(worker.db, worker.settings.data_dir, session_id)
    except NanotasksError:
        return  # its routes stay pending, and the sweep finds them
    if done.told:
        bells.ring("deliver", session_id, worker.settings.host_id)
    if done.trigger and not worker.here.runtime.is_alive(session_id):
        bells.ring("wake", session_id, worker.settings.host_id)
