"""The host's keeper: what one process per host does besides the tasks.

    heartbeat   the host's row says that it is alive
    watcher     a commit in an outbound.db becomes a `deliver.session` signal within milliseconds
    exits       the end of an agent is seen at once
    typing      "is typing" while a turn runs
    alarm       due rows and due delivery attempts are signalled when they are due
    stand-in    the ticks of the sweeps are sent when no beat sends them

Every worker of a host has a keeper process; the one that holds the lock in the data directory is at work and the
others wait for the lock, which the kernel frees when its holder dies. A duty that fails is started again; each of
them only shortens a wait that a sweep would end.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nanotasks import faults, logs, signals
from nanotasks.central import database
from nanotasks.deliver.typing import TypingIndicator
from nanotasks.deliver.watcher import Watcher
from nanotasks.errors import NanotasksError
from nanotasks.ops.alarm import sound_alarm
from nanotasks.ops.beat import start_beat_thread
from nanotasks.ops.lifeline import Lifeline
from nanotasks.ops.stand_in import stand_in
from nanotasks.paths import place
from nanotasks.runtimes.contract import Exit
from nanotasks.settings import Settings, settings
from nanotasks.sweep import hosts
from nanotasks.sweep.lost import Signal
from nanotasks.wake.local import this_host
from nanotasks.wake.service import on_exit as on_agent_exit

_log = logs.get("keeper")

ELECTION_S = 0.5
PAUSE_S = 0.5
PAUSE_MAX_S = 15.0
JOIN_S = 1.0
LOST_PARENT_GRACE_S = 5.0


@dataclass(frozen=True)
class Duty:
    """Something that runs in a thread until `stop` is set."""

    name: str
    run: Callable[[threading.Event], None]


def run_keeper(lifeline: Lifeline, *, beat: bool = False) -> int:
    """Keep this host until SIGTERM; with `beat`, also send the ticks. Returns the exit code."""
    config = settings()
    logs.configure(config.log_level, config.log_format)
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    lifeline.hold(LOST_PARENT_GRACE_S)
    if beat:
        start_beat_thread()
    handle = elected(config.data_dir / "keeper.lock", stop)
    if handle is not None:
        _log.info("keeping_host", host=config.host_id)
        keep(duties(config), stop)
        _sign_off(config)
        os.close(handle)
    signals.flush()
    return 0


def _sign_off(config: Settings) -> None:
    """Before the lock is free, so that a successor's heartbeat comes later."""
    try:
        hosts.mark_stopped(database(config), config, place(config))
    except NanotasksError as error:
        _log.warning("not_signed_off", error=str(error))


def elected(path: Path, stop: threading.Event) -> int | None:
    """Wait for the lock of this host's keeper; the open lock, or None when `stop` came first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            if stop.wait(ELECTION_S):
                os.close(handle)
                return None


def keep(chosen: list[Duty], stop: threading.Event) -> None:
    """Run duties in threads until `stop` is set, each again when it fails."""
    threads = [threading.Thread(target=_again, args=(duty, stop), name=duty.name, daemon=True) for duty in chosen]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in threads:
        thread.join(JOIN_S)


def _again(duty: Duty, stop: threading.Event) -> None:
    pause_s = PAUSE_S
    while not stop.is_set():
        began = time.monotonic()
        try:
            duty.run(stop)
        except Exception as error:
            pause_s = PAUSE_S if time.monotonic() - began > PAUSE_MAX_S else min(2 * pause_s, PAUSE_MAX_S)
            _log.warning("duty_failed", duty=duty.name, error=repr(error), again_in_s=pause_s)
        stop.wait(pause_s)


def duties(config: Settings) -> list[Duty]:
    """What the keeper of this host does."""
    watcher = Watcher(database(config), config, lambda session_id: signals.ring("deliver", session_id, config.host_id))
    return [
        Duty("watcher", watcher.run),
        Duty("typing", TypingIndicator(config).run),
        Duty("heartbeat", lambda stop: beat_heart(config, stop)),
        Duty("exits", lambda stop: watch_exits(config, stop)),
        Duty("stand-in", lambda stop: stand_in(database(config), config, stop)),
        Duty("alarm", lambda stop: sound_alarm(database(config), config, ring_all, stop)),
    ]


def beat_heart(config: Settings, stop: threading.Event) -> None:
    """Write the host's sign of life once per period; where it may not go on as this host, end this worker."""
    while True:
        try:
            hosts.sign_of_life(database(config), config)
        except hosts.HostRefusedError as error:
            _log.error("host_refused", host=config.host_id, error=str(error))
            os.kill(os.getppid(), signal.SIGTERM)
        if stop.wait(config.host_heartbeat_s):
            return


def watch_exits(config: Settings, stop: threading.Event) -> None:
    """Note the end of every agent, and have its session looked at."""
    here = this_host(config)

    def on_exit(ended: Exit) -> None:
        for kind, *ids in on_agent_exit(here, ended):
            signals.ring(kind, *ids)
        signals.poke(f"typing:{here.host_id}", {"ended": ended.session_id})

    here.runtime.watch(on_exit, stop)


def ring_all(found: Iterable[Signal]) -> None:
    """Ring what is due, without asking the bell."""
    faults.point("alarm.after_mark")
    for kind, *ids in found:
        signals.ring(kind, *ids, force=True)
