"""What is left to do when an agent is dead: its unfinished work, its session's due time, its row.

    1. claims   rows it had claimed are put off, or fail after too many crashes (once per instance: `reset_at`);
                they are only released where we stopped an agent that did nothing wrong
    2. due      the session's due time is read from the file, without rows that it had finished
    3. trouble  an agent that died young and left due work that it never claimed counts as a failed start
    4. end      the instance's row

Repeating any of it is harmless. Only claims of this instance count: older ones were put off when their own instance
was buried, and the next runner clears them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from nanotasks import faults, logs
from nanotasks.central.hosts import Instance
from nanotasks.clock import now_ms
from nanotasks.domain.retry import ResetAction
from nanotasks.domain.timestamps import read_ms
from nanotasks.errors import HostileFileError
from nanotasks.session.errors import OutboundBusyError, SessionFileError
from nanotasks.session.inbound import Inbound, open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import OutboundReader, ReadLimits, open_outbound
from nanotasks.wake import due, instances
from nanotasks.wake.here import Here, Signal
from nanotasks.wake.trouble import start_failed

log = logs.get(__name__)

# An agent that ends sooner than this, with due work untouched, would be started in a circle.
YOUNG_S = 10.0
ACKED = frozenset({"completed", "failed"})


def folder_of(here: Here, instance: Instance) -> SessionFolder:
    """The session folder of an instance."""
    return SessionFolder.of(here.settings.files_dir, instance.agent_group_id, instance.session_id)


def bury(here: Here, instance: Instance, reason: str, *, expected: bool = False, at_fault: bool = True) -> list[Signal]:
    """Do all of the above for an agent that is proven dead.

    `expected` says that we stopped it, `at_fault` that its claims count as tries: it crashed or was stuck.

    Returns what to ring: a last drain of what it wrote, and a session that waited for the place that is free now.
    """
    was_full = instances.is_full(here)
    folder = folder_of(here, instance)
    rings: list[Signal] = [("deliver", instance.session_id, here.host_id)]
    try:
        if at_fault and _put_off_claims(here, folder, instance):
            rings.append(("project", instance.session_id, here.host_id))
        due_ms = settle_due(here, folder, instance.session_id)
        faults.point("bury.after_due")
    except (HostileFileError, OutboundBusyError, SessionFileError, OSError) as error:
        log.warning("session_files_unusable", session=instance.session_id, error=str(error))
        rings += start_failed(here, instance.session_id, str(error))
        due_ms = None
    if not expected:
        rings += _judge(here, instance, reason, due_ms)
    instances.end(here.db, instance, reason)
    faults.point("bury.after_end")
    log.info("agent_ended", session=instance.session_id, instance=instance.id, reason=instance.end_reason or reason)
    freed = instances.waiting_sessions(here, 1) if was_full else []
    return list(dict.fromkeys(rings)) + [("wake", session_id, here.host_id) for session_id in freed]


def _put_off_claims(here: Here, folder: SessionFolder, instance: Instance) -> bool:
    """Whether a row has failed for good, which may have been a scheduled task's."""
    if instance.reset_at is not None:
        return False
    with _outbound(here, folder) as outbound:
        claimed = [claim.message_id for claim in outbound.claims() if _is_of(instance, claim.status_changed)]
    with open_inbound(folder) as inbound:
        resets = inbound.reset_claimed(
            claimed,
            now_ms(),
            max_tries=here.settings.inbound_max_tries,
            backoff_ms=round(here.settings.inbound_backoff_s * 1000),
        )
    faults.point("bury.after_reset")
    instances.mark_reset(here.db, instance.id)
    return any(reset.action is ResetAction.FAIL for reset in resets.values())


def _is_of(instance: Instance, claimed: str) -> bool:
    """Claims carry whole seconds; one that cannot be read is taken for this instance's."""
    claimed_ms = read_ms(claimed)
    return claimed_ms is None or claimed_ms >= instance.started_at // 1000 * 1000


def settle_due(here: Here, folder: SessionFolder, session_id: str) -> int | None:
    """Read the session's due time from its file while no agent runs: 0 for at once, None for never.

    Rows whose message has ended without them, because the session was closed for a while, end first.
    """
    with open_inbound(folder) as inbound:
        inbound.fail(instances.ended_elsewhere(here.db, session_id, inbound.open_ids()))
        return due.recompute(here.db, inbound, session_id, _finished(here, folder, inbound))


def _finished(here: Here, folder: SessionFolder, inbound: Inbound) -> list[str]:
    open_ids = inbound.open_ids()
    if not open_ids:
        return []
    try:
        with _outbound(here, folder) as outbound:
            return [message_id for message_id, status in outbound.acks(open_ids).items() if status in ACKED]
    except OutboundBusyError:
        # What a dead agent left half-written is for the next one to mend, which leaves out by itself what is acked.
        return []


@contextlib.contextmanager
def _outbound(here: Here, folder: SessionFolder) -> Iterator[OutboundReader]:
    with open_outbound(folder, ReadLimits.of(here.settings), agent_is_dead=True) as outbound:
        yield outbound


def _judge(here: Here, instance: Instance, reason: str, due_ms: int | None) -> list[Signal]:
    now = now_ms()
    if now - instance.started_at >= YOUNG_S * 1000:
        instances.start_proved(here.db, [instance.session_id])
    elif due_ms is not None and due_ms <= now:
        why = instance.end_reason or reason
        return start_failed(here, instance.session_id, f"The agent ended right after its start: {why}.")
    return []
