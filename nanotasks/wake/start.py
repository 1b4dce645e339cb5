"""Starting a session's agent: its surroundings first, its row before it runs, and a failure that is seen.

enter the row ─▶ project destinations and routing ─▶ write configuration and instructions ─▶ forget the old
heartbeat ─▶ runtime.start ─▶ record that it runs
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import IntegrityError

from nanotasks import faults, logs
from nanotasks.agents import start_spec
from nanotasks.agents.mounts import allowed_mounts
from nanotasks.agents.projection import project
from nanotasks.errors import DependencyDownError, NanotasksError
from nanotasks.ids import new_id
from nanotasks.runtimes import host_lease
from nanotasks.runtimes.contract import AlreadyRunningError, Running, StartSpec
from nanotasks.session.files import clear_heartbeat
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.wake import instances
from nanotasks.wake.here import Here, Outcome, State
from nanotasks.wake.instances import SessionFacts
from nanotasks.wake.trouble import start_failed

log = logs.get(__name__)

# So many of the waiting rows stand in the log line of a start.
_TOLD = 20


def enter_and_start(here: Here, facts: SessionFacts, epoch: int) -> Outcome | None:
    """Start the session's agent; None when this host has no place for it. The caller holds the session's mutex."""
    instance_id = new_id("inst")
    try:
        began = host_lease.begin(here.settings)
    except DependencyDownError as error:
        return Outcome(State.FAILED, start_failed(here, facts.agent_session.id, str(error)))
    try:
        if not instances.enter(here, facts, instance_id, epoch, fenced=began is not None):
            return None
    except instances.GroupMovedError:
        return Outcome(State.NOT_HERE)
    except IntegrityError:
        # Somebody who did not hold the mutex any more recorded a start; the next look sees it.
        return Outcome(State.BUSY)
    faults.point("wake.after_enter")
    try:
        return _start(here, facts, instance_id, epoch, began)
    except (NanotasksError, OSError, sqlite3.Error) as error:
        return _failed(here, facts, instance_id, error)


def _start(here: Here, facts: SessionFacts, instance_id: str, epoch: int, began: int | None) -> Outcome:
    session_id = facts.agent_session.id
    spec, waiting = _prepare(here, facts, instance_id, epoch, began)
    faults.point("wake.after_prepare")
    try:
        running = here.runtime.start(spec)
    except AlreadyRunningError as refused:
        instances.withdraw(here.db, instance_id)
        return _adopted(here, facts, refused.running)
    faults.point("wake.after_start")
    instances.started(here.db, running)
    faults.point("wake.after_record")
    log.info(
        "agent_started",
        session=session_id,
        instance=instance_id,
        epoch=epoch,
        runtime=here.runtime.name,
        inbound=waiting,
    )
    return Outcome(State.STARTED)


def _prepare(
    here: Here, facts: SessionFacts, instance_id: str, epoch: int, began: int | None
) -> tuple[StartSpec, list[str]]:
    """How to start it, and the first of the rows that wait for it."""
    session_id = facts.agent_session.id
    folder = SessionFolder.of(here.settings.files_dir, facts.agent_session.agent_group_id, session_id)
    folder.create()
    with open_inbound(folder) as inbound:
        project(here.db, inbound, session_id)
        waiting = inbound.open_ids()[:_TOLD]
    with here.db.write() as session:
        rows = start_spec.read_facts(session, here.settings, session_id)
    extra = allowed_mounts(rows.config.additional_mounts, here.settings)
    spec = start_spec.prepare(rows, here.settings, here.runtime.name, instance_id, epoch, extra, began)
    clear_heartbeat(folder)
    return spec, waiting


def _adopted(here: Here, facts: SessionFacts, running: Running) -> Outcome:
    log.info("agent_adopted", session=running.session_id, instance=running.instance_id)
    adopted = instances.adopt(here, facts, running, here.runtime.name, here.runtime.isolates)
    return Outcome(State.RUNNING if adopted else State.BUSY)


def _failed(here: Here, facts: SessionFacts, instance_id: str, error: Exception) -> Outcome:
    session_id = facts.agent_session.id
    row = instances.by_id(here.db, instance_id)
    if row is not None:
        instances.end(here.db, row, f"not started: {error}")
    return Outcome(State.FAILED, start_failed(here, session_id, str(error)))
