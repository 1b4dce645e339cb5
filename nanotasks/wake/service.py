"""Wake: make what runs for a session agree with what is due for it.

    look (no mutex)   recorded live, and the runtime says it is alive: done. This is the path of a warm session.
    mutex             the lease `session:<id>`. Who does not get it returns: the holder looks once more afterwards.
      ask             the runtime, not the row, what runs
      bury            a recorded agent that is dead: put off its claims, settle the due time, end its row;
                        also one of a host that is gone, from which the group has moved here
      adopt           an agent that runs and is not recorded
      stop            an agent that should not run: the session is closed, or its group lives on another host
      start           when something is due, nothing runs and there is a place
    release, look     once more: rows that came, or an agent that died, while others were turned away

What a crash does after each step (the lease of a dead owner on this host is void at once):

    row entered          nothing runs: the next look buries the row, which put off nothing and changed nothing
    surroundings written the same; they are written again at the next start
    runtime.start        the agent runs and its row is live: the next look finds both, and records nothing new
    start recorded       as it should be
    stop noted           the agent runs on with a reason on its row, until it is stopped again or ends
    agent stopped        the row is live and nothing runs: the next look buries it with the noted reason
    claims put off       they are put off already and left alone; a crash before `reset_at` may cost one try
    due time settled     settled again
    row ended, not rung  the sweep for due work rings the wake, the one for unfinished deliveries the last drain

Nothing here rings: functions return what to ring, once their transactions are committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from nanotasks import faults, logs
from nanotasks.central import leases
from nanotasks.central.hosts import Instance
from nanotasks.clock import now_ms
from nanotasks.errors import HostileFileError
from nanotasks.runtimes.contract import Exit, Running, Runtime, RuntimeDownError
from nanotasks.schedule.project import project
from nanotasks.session.errors import OutboundBusyError, SessionFileError
from nanotasks.session.layout import SessionFolder
from nanotasks.wake import capacity, instances
from nanotasks.wake.bury import bury, settle_due
from nanotasks.wake.here import Here, Outcome, Signal, State
from nanotasks.wake.instances import SessionFacts
from nanotasks.wake.start import enter_and_start
from nanotasks.wake.trouble import start_failed

log = logs.get(__name__)

LOOKS = 4
MUTEX_POLL_S = 0.05
# A look that ended so would end so again: others look, or a time has to come.
_NO_SECOND_LOOK = frozenset({State.BUSY, State.WAITING, State.LATER, State.FAILED, State.NOT_HERE})


def wake(here: Here, session_id: str) -> Outcome:
    """Start the session's agent if something is due and none runs; adopt, bury or stop what needs it."""
    rings: list[Signal] = []
    for _ in range(LOOKS):
        outcome = _look(here, session_id)
        rings += outcome.rings
        if outcome.state in _NO_SECOND_LOOK or not _needs_a_look(here, session_id):
            return Outcome(outcome.state, rings)
    return Outcome(State.BUSY, [*rings, ("wake", session_id, here.host_id)])


def stop(here: Here, session_id: str, reason: str, *, wait_s: float = 30.0, at_fault: bool = False) -> Outcome:
    """Stop the session's agent and prove it dead; afterwards wake the session again if something is due.

    `at_fault` says that the agent is stopped for what it does: then the rows it holds have lost a try, as in a crash.
    Waits at most `wait_s` for others who work on the session, and is `BUSY` after that. Raises `RuntimeDownError`
    when the runtime cannot say whether the agent is dead.
    """
    with _mutex(here, session_id, wait_s) as epoch:
        facts = instances.read(here, session_id)
        if epoch is None or facts is None or _home_of(facts) != here.host_id:
            return _turned_away(here, session_id, facts)
        rings = _stop(here, facts, reason, at_fault=at_fault)
    again = wake(here, session_id)
    state = State.STOPPED if again.state in {State.IDLE, State.NOT_HERE} else again.state
    return Outcome(state, rings + again.rings)


def park(here: Here, session_id: str, reason: str, *, wait_s: float = 30.0) -> Outcome:
    """Stop the session's agent and leave it stopped, whatever is due: for a host that shuts down. As `stop` else."""
    with _mutex(here, session_id, wait_s) as epoch:
        facts = instances.read(here, session_id)
        if epoch is None or facts is None or _home_of(facts) != here.host_id:
            return _turned_away(here, session_id, facts)
        return Outcome(State.STOPPED, _stop(here, facts, reason))


def on_exit(here: Here, ended: Exit) -> list[Signal]:
    """Note how an agent ended and return the look to ring for; called by the runtime's watcher.

    Raises when it cannot be noted, so that the runtime reports it again.
    """
    instances.note_exit(here.db, ended.instance_id, ended.code, ended.reason)
    faults.point("exit.after_note")
    return [("wake", ended.session_id, here.host_id)]


def _look(here: Here, session_id: str) -> Outcome:
    facts = instances.read(here, session_id)
    if facts is None or _home_of(facts) != here.host_id:
        return _turned_away(here, session_id, facts)
    try:
        if (
            _is_recorded_running(here, facts)
            and _should_run(here, facts)
            and _runtime_of(here, facts).is_alive(session_id)
        ):
            return Outcome(State.RUNNING)
        with _mutex(here, session_id) as epoch:
            # What was read before the mutex is history; the session may be another host's by now.
            facts = instances.read(here, session_id)
            if epoch is None or facts is None or _home_of(facts) != here.host_id:
                return _turned_away(here, session_id, facts)
            faults.point("wake.after_mutex")
            return _reconcile(here, facts, epoch)
    except RuntimeDownError as error:
        return _put_off(here, session_id, str(error))


def _turned_away(here: Here, session_id: str, facts: SessionFacts | None) -> Outcome:
    """The session is not there, looked after by another host, to which the signal is passed on, or worked on."""
    home = _home_of(facts) if facts is not None else None
    if home == here.host_id:
        return Outcome(State.BUSY)
    return Outcome(State.NOT_HERE, [("wake", session_id, home)] if home is not None else [])


def _needs_a_look(here: Here, session_id: str) -> bool:
    """Whether something came, or ended, for which others were turned away from the mutex."""
    facts = instances.read(here, session_id)
    if facts is None or _home_of(facts) != here.host_id:
        return False
    if facts.live is None or facts.live_host_gone:
        return _should_run(here, facts) and facts.is_due(now_ms())
    try:
        return not _runtime_of(here, facts).is_alive(session_id)
    except RuntimeDownError:
        return False


def _reconcile(here: Here, facts: SessionFacts, epoch: int) -> Outcome:
    """Under the mutex: one pass over ask, bury, adopt, stop, start."""
    session_id = facts.agent_session.id
    rings: list[Signal] = []
    if facts.live is not None and facts.live_host_gone:
        rings = bury(here, facts.live, f"its host {facts.live.host_id} is gone", expected=True, at_fault=False)
        facts = instances.read(here, session_id) or facts
    running = _runtime_of(here, facts).find(session_id)
    if facts.live is not None and (running is None or running.instance_id != facts.live.id):
        rings += bury(here, facts.live, _end_of(here, facts, facts.live))
        facts = instances.read(here, session_id) or facts
    if running is None:
        outcome = _start_if_due(here, facts, epoch)
    elif _should_run(here, facts):
        outcome = _acknowledge(here, facts, running)
    else:
        outcome = Outcome(State.STOPPED, _stop(here, facts, _why_not(facts)))
    return Outcome(outcome.state, _hand_over(here, facts, rings + outcome.rings))


def _hand_over(here: Here, facts: SessionFacts, rings: list[Signal]) -> list[Signal]:
    """What follows for a session whose group has moved is for its new host."""
    if facts.host_id in (None, here.host_id):
        return rings
    session_id = facts.agent_session.id
    others = [ring for ring in rings if ring[1] != session_id]
    return [*others, ("wake", session_id, facts.host_id), ("deliver", session_id, facts.host_id)]


def _end_of(here: Here, facts: SessionFacts, dead: Instance) -> str:
    """How it ended, by what the runtime still knows: the next start takes its place, and the watcher may be late."""
    try:
        ended = _runtime_of(here, facts).last_exit(dead.session_id, dead.id)
    except RuntimeDownError:
        ended = None
    if ended is None:
        # The watcher removes what it has noted, perhaps since the row was read.
        again = instances.read(here, dead.session_id)
        noted = again.live.end_reason if again and again.live and again.live.id == dead.id else None
        return noted or "its end was not seen"
    instances.note_exit(here.db, dead.id, ended.code, ended.reason)
    return ended.reason


def _acknowledge(here: Here, facts: SessionFacts, running: Running) -> Outcome:
    """An agent runs as it should; see to it that it is recorded."""
    runtime = _runtime_of(here, facts)
    if facts.live is None:
        instances.adopt(here, facts, running, runtime.name, runtime.isolates)
        log.info("agent_adopted", session=running.session_id, instance=running.instance_id)
    elif facts.live.runtime_id is None:
        instances.started(here.db, running)
    return Outcome(State.RUNNING)


def _start_if_due(here: Here, facts: SessionFacts, epoch: int) -> Outcome:
    session_id, now = facts.agent_session.id, now_ms()
    due_ms, retry_ms = facts.agent_session.next_due_at, facts.agent_session.wake_retry_at
    if not _should_run(here, facts) or due_ms is None or due_ms > now:
        return Outcome(State.IDLE)
    if retry_ms is not None and retry_ms > now:
        return Outcome(State.LATER)
    folder = SessionFolder.of(here.settings.files_dir, facts.agent_session.agent_group_id, session_id)
    try:
        rings = [one for one in project(here.db, here.settings, session_id, waking=True) if one[0] != "wake"]
        due_ms = settle_due(here, folder, session_id)
    except (HostileFileError, OutboundBusyError, SessionFileError, OSError) as error:
        return _put_off(here, session_id, str(error))
    if due_ms is None or due_ms > now:
        instances.start_proved(here.db, [session_id])
        return Outcome(State.IDLE, rings)
    outcome = _start_where_there_is_room(here, facts, epoch)
    return Outcome(outcome.state, rings + outcome.rings)


def _start_where_there_is_room(here: Here, facts: SessionFacts, epoch: int) -> Outcome:
    session_id = facts.agent_session.id
    outcome = enter_and_start(here, facts, epoch)
    if outcome is not None:
        return outcome
    rings = _free_a_place(here, session_id)
    outcome = enter_and_start(here, facts, epoch)
    if outcome is not None:
        return Outcome(outcome.state, rings + outcome.rings)
    instances.show_trouble(
        here.db, session_id, f"Waiting for a place: {here.settings.max_containers} agents run on {here.host_id}."
    )
    log.info("agent_waits", session=session_id, max_containers=here.settings.max_containers)
    return Outcome(State.WAITING, rings)


def _free_a_place(here: Here, for_session: str) -> list[Signal]:
    """Stop the longest idle agent, if there is one whose session nobody else works on."""
    idle = capacity.longest_idle(here, for_session)
    if idle is None:
        return []
    with _mutex(here, idle.session_id) as epoch:
        facts = instances.read(here, idle.session_id)
        # A message may have come since it was found idle.
        if epoch is None or facts is None or _home_of(facts) != here.host_id or facts.is_due(now_ms()):
            return []
        rings = _stop(here, facts, "its place was needed")
    if _needs_a_look(here, idle.session_id):
        rings.append(("wake", idle.session_id, here.host_id))
    return rings


def _stop(here: Here, facts: SessionFacts, reason: str, *, at_fault: bool = False) -> list[Signal]:
    """Under the mutex: stop what runs and bury it. The reason is noted first, whoever sees the end first."""
    session_id, live = facts.agent_session.id, facts.live
    why = f"stopped: {reason}"
    if live is not None:
        instances.note_exit(here.db, live.id, None, why)
    faults.point("stop.after_note")
    ended = _runtime_of(here, facts).stop(session_id, here.settings.container_stop_grace_s, reason)
    faults.point("stop.after_stop")
    if live is None:
        return [("deliver", session_id, here.host_id)] if ended else []
    if ended is not None:
        instances.note_exit(here.db, live.id, ended.code, why)
    return bury(here, live, why, expected=True, at_fault=at_fault)


def _put_off(here: Here, session_id: str, why: str) -> Outcome:
    return Outcome(State.FAILED, start_failed(here, session_id, why))


def _home_of(facts: SessionFacts) -> str | None:
    """The host that looks after the session: where its agent is, if it has one, else where its agent group lives."""
    live = None if facts.live_host_gone else facts.live
    return facts.host_id if live is None else live.host_id


def _is_recorded_running(here: Here, facts: SessionFacts) -> bool:
    live = facts.live
    return live is not None and live.runtime_id is not None and live.host_id == here.host_id


def _should_run(here: Here, facts: SessionFacts) -> bool:
    return facts.active and facts.host_id == here.host_id


def _why_not(facts: SessionFacts) -> str:
    return f"the agent group lives on {facts.host_id}" if facts.active else "the session is closed"


def _runtime_of(here: Here, facts: SessionFacts) -> Runtime:
    return here.named(facts.live.runtime) if facts.live is not None else here.runtime


@contextmanager
def _mutex(here: Here, session_id: str, wait_s: float = 0.0) -> Iterator[int | None]:
    """Hold the session's lease and yield its epoch, or yield None when somebody else holds it for `wait_s`.

    Everybody who claims it is on this host, where a dead owner's lease is void at once, so it may live longer than
    the slowest start and stop together. When the session's group moves away from a host that is gone, what that host
    held is free (`leases.free_of_hosts`).
    """
    config = here.settings
    ttl_s = config.lease_s + 2 * config.container_start_timeout_s + 2 * config.container_stop_grace_s
    give_up = time.monotonic() + wait_s
    while True:
        with leases.holding(here.db, f"session:{session_id}", here.owner, ttl_s) as held:
            if held is not None or time.monotonic() >= give_up:
                yield held.epoch if held else None
                return
        time.sleep(MUTEX_POLL_S)
