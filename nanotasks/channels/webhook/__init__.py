"""The `webhook` channel: any program that can sign an HTTP request is a chat platform.

Inbound: `POST /webhooks/webhook` or `/webhooks/webhook/<chat>` on the gateway (`receiver.py`), outbound: a POST to
NANOTASKS_WEBHOOK_OUTBOUND_URL (`sender.py`), both signed with NANOTASKS_WEBHOOK_SECRET (`signature.py`). Whether
the other side honours the `Idempotency-Key` is not known, so the channel does not promise it, and
NANOTASKS_WEBHOOK_UNCERTAIN says what becomes of a send that ended without an answer.
"""

from __future__ import annotations

from typing import Literal, cast

from nanotasks.channels.contract import Adapter, Capabilities, Receiver, Sender
from nanotasks.settings import Settings


def _capabilities(settings: Settings) -> Capabilities:
    return Capabilities(
        supports_threads=settings.webhook_threads,
        uncertain=cast(Literal["resend", "hold"], settings.webhook_uncertain),
        supports_edits=True,
        supports_reactions=True,
    )


def _sender(settings: Settings) -> Sender:
    from nanotasks.channels.webhook.sender import WebhookSender

    return WebhookSender(settings)


def _receiver(settings: Settings) -> Receiver:
    from nanotasks.channels.webhook.receiver import WebhookReceiver

    return WebhookReceiver(settings)


ADAPTER = Adapter(
    "webhook",
    _capabilities,
    sender=_sender,
    receiver=_receiver,
    enabled=lambda settings: bool(settings.webhook_secret),
)
