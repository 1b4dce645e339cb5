"""Carrying one claimed row to where it goes: a chat, another agent, or the host itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nanotasks.channels import registry
from nanotasks.channels.contract import Address, OutboundFile, OutboundMessage, PermanentError, Sender
from nanotasks.deliver import actions, agents, calls, outbox, permissions, references
from nanotasks.deliver.facts import Round
from nanotasks.deliver.ledger import Claim
from nanotasks.schedule import actions as schedule_actions

schedule_actions.register()

# The kind and the channel type that the host itself takes; each knows what it took before.
SYSTEM = "system"
AGENT = "agent"


class Courier:
    """Carries the rows of one lane. What it looked up for one row holds for the next, for as long as a round lasts."""

    def __init__(self, around: Round) -> None:
        self._round = around
        self._permitted = False
        self._sender: Sender | None = None

    def carry(self, claim: Claim) -> str | None:
        """Send one row and return what the platform calls it. Raises what went wrong; see `calls.failure_of`."""
        content = _content_of(claim)
        if claim.kind == SYSTEM:
            self._perform(claim, content)
            return None
        if claim.channel_type == AGENT:
            agents.hand_over(self._round, claim, content)
            return None
        return self._send(claim, content)

    def _perform(self, claim: Claim, content: dict[str, Any]) -> None:
        around = self._round
        request = actions.Request(
            claim.id, claim.message_out_id, claim.in_reply_to, content, around.session, around.signals
        )
        actions.perform(self._round.db, self._round.settings, request)

    def _send(self, claim: Claim, content: dict[str, Any]) -> str | None:
        if not claim.channel_type or not claim.platform_id:
            raise PermanentError("The message names no chat.", fix="Say to which destination it goes.")
        self._check_permission(claim, claim.channel_type, claim.platform_id)
        message = OutboundMessage(
            delivery_id=claim.id,
            attempt=claim.attempt,
            address=Address(claim.channel_type, claim.platform_id, claim.thread_id),
            content=self._as_the_platform_knows_it(claim, content),
            kind=claim.kind,
            files=self._files(claim, content),
        )
        sent = calls.send(self._channel(claim.channel_type), message, self._round.settings.delivery_timeout_s)
        return sent.platform_message_id

    def _check_permission(self, claim: Claim, channel_type: str, platform_id: str) -> None:
        if not self._permitted and (channel_type, platform_id) != self._round.session.own_chat:
            with self._round.db.read_core() as connection:
                permissions.check_chat(connection, claim.agent_group_id, channel_type, platform_id)
            self._permitted = True

    def _channel(self, channel_type: str) -> Sender:
        if self._sender is None:
            self._sender = registry.sender(channel_type, self._round.settings)
        return self._sender

    def _as_the_platform_knows_it(self, claim: Claim, content: dict[str, Any]) -> Mapping[str, Any]:
        if "operation" not in content:
            return content
        with self._round.db.read() as session:
            return references.with_platform_id(session, claim.session_id, claim.agent_group_id, content)

    def _files(self, claim: Claim, content: dict[str, Any]) -> tuple[OutboundFile, ...]:
        return tuple(
            OutboundFile(file.name, file.data)
            for file in outbox.named_files(self._round, claim.message_out_id, content)
        )


def _content_of(claim: Claim) -> dict[str, Any]:
    try:
        content = json.loads(claim.content)
    except (ValueError, RecursionError) as error:
        raise PermanentError("The content is not JSON.") from error
    if not isinstance(content, dict):
        raise PermanentError("The content is not a JSON object.")
    return content
