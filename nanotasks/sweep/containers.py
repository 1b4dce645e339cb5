"""The sweep over this host's agents: what the runtime says runs, against what the database says.

    recorded, does not run      look at the session (bury, and start again if something is due)
    runs, not recorded          look at the session (adopt)
    runs, no such session       stop it: its session was deleted
    recorded on another host    look at the session (its group has moved here: bury it once that host is gone)
    runs, should not            look at the session (it was closed, or its group moved: stop)
    runs, recorded              decide whether it is stuck, and stop it if so
    wrote what nobody took      have it delivered (`unheard`)

Exits and commits are seen at once by watchers and due work is signalled by `sweep.due`; this is the net below. A look
is rung, not done here, so that one session's trouble holds up no other; stops are done here, within a budget.

A pass that comes much later than it should says that the machine slept or the workers were away: signs of life are
old then although nobody is stuck, so stuck decisions pause for one grace period.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable

from sqlalchemy import select

from nanotasks import logs
from nanotasks.central import leases
from nanotasks.central.hosts import Instance
from nanotasks.central.leases import Lease
from nanotasks.clock import now_ms
from nanotasks.domain.stuck import AgentFacts, Claim, Kill, KillReason, StuckLimits, decide_stuck
from nanotasks.errors import NanotasksError
from nanotasks.runtimes.contract import Running, Runtime, RuntimeDownError
from nanotasks.session.files import heartbeat_ms
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.session.rows import ContainerState
from nanotasks.sweep.unheard import unheard
from nanotasks.wake import instances, service
from nanotasks.wake.bury import YOUNG_S, folder_of
from nanotasks.wake.here import Here, Signal

log = logs.get(__name__)

# A pass may take this long; the agents it did not come to are looked at in the next one.
BUDGET_S = 40.0
LEASE_S = 60.0
# Agents that ended so long before the last pass are still asked whether all that they wrote was taken.
ENDED_LATELY_S = 60.0
# A pass that is later than this many periods follows a gap.
GAP_PERIODS = 6


def sweep(here: Here) -> list[Signal]:
    """One pass; what to ring afterwards. A pass that meets another one does nothing."""
    now = now_ms()
    last = _last_pass(here)
    grace_until = _grace_until(here, last, now)
    payload = json.dumps({"last_ms": now, "grace_until_ms": grace_until})
    held = leases.claim(here.db, _lease_name(here), here.owner, LEASE_S, payload)
    if held is None:
        return []
    try:
        leases.free_abandoned(here.db, here.owner)
        rings = _sweep(here, decide=now >= grace_until)
        since = last.get("last_ms", now) - round(ENDED_LATELY_S * 1000)
        return rings + [("deliver", session_id, here.host_id) for session_id in unheard(here, since)]
    finally:
        leases.release(here.db, held)


def _lease_name(here: Here) -> str:
    return f"sweep.containers:{here.host_id}"


def _last_pass(here: Here) -> dict[str, int]:
    """What the last pass remembers: `last_ms`, when it began, and `grace_until_ms`."""
    with here.db.read() as session:
        text = session.scalars(select(Lease.payload).where(Lease.name == _lease_name(here))).one_or_none()
    remembered: dict[str, int] = json.loads(text or "{}")
    return remembered


def _grace_until(here: Here, last: dict[str, int], now: int) -> int:
    """Until when (milliseconds) nobody is called stuck: a claim's patience after the end of a gap."""
    gap_ms = here.settings.sweep_containers_period_s * GAP_PERIODS * 1000
    if now - last.get("last_ms", now) > gap_ms:
        return now + here.settings.claim_tolerance_s * 1000
    return last.get("grace_until_ms", 0)


def _sweep(here: Here, *, decide: bool) -> list[Signal]:
    rings: list[Signal] = []
    recorded = {one.session_id: one for one in instances.live_on(here.db, here.host_id)}
    names = {here.runtime.name, *(one.runtime for one in recorded.values())}
    give_up = time.monotonic() + BUDGET_S
    for runtime in map(here.named, sorted(names)):
        mine = [one for one in recorded.values() if one.runtime == runtime.name]
        try:
            running = {one.session_id: one for one in runtime.list()}
        except RuntimeDownError as error:
            # Nobody is dead because nobody can be asked.
            log.warning("runtime_does_not_answer", runtime=runtime.name, error=str(error))
            continue
        gone = [one.session_id for one in mine if _is_another(running.get(one.session_id), one)]
        rings += [("wake", session_id, here.host_id) for session_id in gone]
        strangers = [one for session_id, one in running.items() if session_id not in recorded]
        rings += _settle_strangers(here, runtime, strangers)
        alive = [one for one in mine if one.session_id not in gone]
        old = now_ms() - round(YOUNG_S * 1000)
        instances.start_proved(here.db, [one.session_id for one in alive if one.started_at < old])
        if decide:
            random.shuffle(alive)
            rings += _stop_stuck(here, alive, give_up)
    unwanted = instances.unwanted_on(here) + instances.left_by_others(here)
    return rings + [("wake", session_id, here.host_id) for session_id in unwanted]


def _is_another(running: Running | None, recorded: Instance) -> bool:
    return running is None or running.instance_id != recorded.id


def _settle_strangers(here: Here, runtime: Runtime, strangers: Iterable[Running]) -> list[Signal]:
    """Agents that run and are not recorded: adopt those of a session, stop those whose session is gone."""
    rings: list[Signal] = []
    for running in strangers:
        facts = instances.read(here, running.session_id)
        if facts is not None:
            instances.adopt(here, facts, running, runtime.name, runtime.isolates)
            log.info("agent_adopted", session=running.session_id, instance=running.instance_id)
            rings.append(("wake", running.session_id, here.host_id))
            continue
        log.warning("orphan_stopped", session=running.session_id, instance=running.instance_id)
        try:
            runtime.stop(running.session_id, here.settings.container_stop_grace_s, "its session is gone")
        except RuntimeDownError as error:
            log.warning("orphan_not_stopped", session=running.session_id, error=str(error))
    return rings


def _stop_stuck(here: Here, alive: Iterable[Instance], give_up: float) -> list[Signal]:
    rings: list[Signal] = []
    for instance in alive:
        if time.monotonic() > give_up:
            log.warning("sweep_out_of_time", budget_s=BUDGET_S)
            break
        kill = _decide(here, instance)
        if kill is not None:
            log.warning("agent_stuck", session=instance.session_id, instance=instance.id, reason=in_words(kill))
            rings += _stop(here, instance, in_words(kill))
    return rings


def _decide(here: Here, instance: Instance) -> Kill | None:
    config, folder = here.settings, folder_of(here, instance)
    limits = StuckLimits(
        ceiling_ms=config.heartbeat_ceiling_s * 1000,
        claim_tolerance_ms=config.claim_tolerance_s * 1000,
        first_heartbeat_ms=config.first_heartbeat_s * 1000,
    )
    now, beat = now_ms(), heartbeat_ms(folder) or 0
    if now - max(beat, instance.started_at) <= min(limits.claim_tolerance_ms, limits.first_heartbeat_ms):
        return None
    claims, state = _what_it_says(here, folder)
    return decide_stuck(
        AgentFacts(
            now_ms=now,
            heartbeat_ms=beat,
            current_tool=state.current_tool if state else None,
            tool_timeout_ms=state.tool_declared_timeout_ms if state else None,
            claims=claims,
            started_ms=instance.started_at,
        ),
        limits,
    )


def _what_it_says(here: Here, folder: SessionFolder) -> tuple[list[Claim], ContainerState | None]:
    """Claims and running tool as the agent tells them; nothing where its file cannot be read just now."""
    try:
        with open_outbound(folder, ReadLimits.of(here.settings)) as outbound:
            return outbound.claims(), outbound.container_state()
    except (NanotasksError, OSError) as error:
        log.warning("outbound_unreadable", session=folder.root.name, error=str(error))
        return [], None


def in_words(kill: Kill) -> str:
    """`stuck: no sign of life for 1801 s (limit 1800 s)`."""
    what = {
        KillReason.CEILING: "no sign of life",
        KillReason.NO_HEARTBEAT: "no first sign of life",
        KillReason.CLAIM: f"nothing came of the message {kill.message_id}",
    }[kill.reason]
    return f"stuck: {what} for {kill.age_ms / 1000:.0f} s (limit {kill.limit_ms / 1000:.0f} s)"


def _stop(here: Here, instance: Instance, reason: str) -> list[Signal]:
    """Stop one stuck agent; a session somebody works on, or one that cannot be stopped, waits for the next pass."""
    try:
        return service.stop(here, instance.session_id, reason, wait_s=0, at_fault=True).rings
    except (NanotasksError, OSError) as error:
        log.warning("agent_not_stopped", session=instance.session_id, error=str(error))
        return []
