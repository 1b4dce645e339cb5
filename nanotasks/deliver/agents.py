"""Handing a message from one agent to another: a row in the inbound.db of one of the other's sessions.

Which session (NanoClaw 2's rule): the one that the answered message came from; else the one that the newest
message from that agent came from; else the agent's newest; else a new one. The row's id is made from the
delivery's, so that a repetition is one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from nanotasks import logs
from nanotasks.central.engine import insert_missing
from nanotasks.central.groups import AgentGroup
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import PermanentError, RateLimitedError
from nanotasks.clock import now_ms
from nanotasks.deliver import outbox, permissions
from nanotasks.deliver.facts import Round
from nanotasks.deliver.ledger import Claim
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.sessions import session_place
from nanotasks.errors import HostileFileError
from nanotasks.ids import new_id
from nanotasks.session.files import write_inbox_file
from nanotasks.session.inbound import open_inbound
from nanotasks.session.layout import SessionFolder
from nanotasks.session.rows import NewRow
from nanotasks.wake.due import announced

_log = logs.get("deliver")

BURST = 20.0


def hand_over(around: Round, claim: Claim, content: dict[str, Any]) -> None:
    """Give one message to the agent group it names, and wake it.

    Raises `PermanentError` when there is no such agent, it may not be reached, or it lives on another host, and
    `RateLimitedError` when the two talk too much: a conversation between agents has no end of its own.
    """
    target_id = claim.platform_id or ""
    _check(around, claim, target_id)
    _slow_down(around, claim.agent_group_id, target_id)
    target_session_id = _choose_session(around, claim, target_id)
    folder = SessionFolder.of(around.settings.files_dir, target_id, target_session_id)
    if not folder.inbound_db.exists():
        folder.create()
    row_id = f"a2a-{claim.id.partition('-')[2]}"
    attachments = list(_copy_files(around, claim, content, folder, row_id))
    if attachments:
        content = {**content, "attachments": attachments}
    row = NewRow(
        id=row_id,
        kind="chat",
        content=dumps(content),
        timestamp_ms=now_ms(),
        platform_id=claim.agent_group_id,
        channel_type="agent",
        source_session_id=claim.session_id,
    )
    with open_inbound(folder) as inbound, announced(around.db, inbound, target_session_id):
        inbound.insert([row])
    around.signals.ring("wake", target_session_id, around.session.host_id)


def _check(around: Round, claim: Claim, target_id: str) -> None:
    with around.db.write() as session:
        target = session.execute(select(AgentGroup.id, AgentGroup.host_id).where(AgentGroup.id == target_id)).first()
        if target is None:
            raise PermanentError(f"There is no agent {target_id!r}.")
        permissions.check_agent(session.connection(), claim.agent_group_id, target_id)
        if target.host_id is None:
            session.execute(
                update(AgentGroup)
                .where(AgentGroup.id == target_id, AgentGroup.host_id.is_(None))
                .values(host_id=around.session.host_id)
            )
        elif target.host_id != around.session.host_id:
            raise PermanentError(
                f"The agent {target_id} lives on another host ({target.host_id}).",
                why="Agents of different hosts cannot talk to each other yet.",
            )


def _slow_down(around: Round, source_id: str, target_id: str) -> None:
    rate_per_s = around.settings.agent_messages_per_min / 60
    pause_s = around.signals.wait_for_token(f"agents:{source_id}:{target_id}", rate_per_s, BURST)
    if pause_s > 0:
        raise RateLimitedError("These two agents talk too much to each other.", retry_after_s=pause_s)


def _choose_session(around: Round, claim: Claim, target_id: str) -> str:
    with open_inbound(around.session.folder) as inbound:
        answered = inbound.source_session_id(claim.in_reply_to) if claim.in_reply_to else None
        # A repetition chooses by what there was the first time, or the row would come twice.
        candidate = answered or inbound.newest_peer_session_id(target_id, claim.first_attempt_ms)
    own = select(AgentSession.id).where(AgentSession.agent_group_id == target_id, AgentSession.status == "active")
    then = own.where(AgentSession.created_at <= claim.first_attempt_ms)
    newest_then = then.order_by(AgentSession.created_at.desc(), AgentSession.id.desc())
    # Made by the first attempt, or by a host whose clock is ahead.
    first_since = own.order_by(AgentSession.created_at, AgentSession.id)
    with around.db.write() as session:
        return (
            session.scalar(own.where(AgentSession.id == candidate))
            or session.scalar(newest_then.limit(1))
            or session.scalar(first_since.limit(1))
            or _new_session(session, target_id)
        )


def _new_session(session: Session, agent_group_id: str) -> str:
    place = session_place("agent-shared", agent_group_id, None, None)
    session.execute(
        insert_missing(session, AgentSession),
        {
            "id": new_id("sess"),
            "agent_group_id": agent_group_id,
            "route_key": place.route_key,
            "created_at": now_ms(),
        },
    )
    return session.scalars(
        select(AgentSession.id).where(AgentSession.route_key == place.route_key, AgentSession.status == "active")
    ).one()


def _copy_files(
    around: Round, claim: Claim, content: dict[str, Any], target: SessionFolder, row_id: str
) -> Iterator[dict[str, str]]:
    for file in outbox.named_files(around, claim.message_out_id, content):
        try:
            path = write_inbox_file(target, row_id, file.name, file.data)
        except HostileFileError as error:
            _log.warning("file_left_out", session=around.session.id, message=claim.message_out_id, reason=str(error))
            continue
        yield {"name": file.name, "filename": file.name, "type": "file", "localPath": path}
