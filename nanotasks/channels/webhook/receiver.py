"""The receiving half of the `webhook` channel: signed JSON in the form of `nanotasks.channels.form`."""

from __future__ import annotations

import time

from nanotasks.channels.contract import AcceptCallable, HttpAnswer, HttpRequest
from nanotasks.channels.form import read
from nanotasks.channels.webhook.signature import verify
from nanotasks.errors import DependencyDownError
from nanotasks.settings import Settings

CHANNEL = "webhook"


class WebhookReceiver:
    """Verifies and accepts; the gateway listens for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._accept: AcceptCallable | None = None

    def start(self, accept: AcceptCallable) -> None:
        """Requests may come from now on."""
        self._accept = accept

    def stop(self) -> None:
        """Requests are refused from now on, for their sender to try again."""
        self._accept = None

    def handle(self, request: HttpRequest) -> HttpAnswer:
        """202 with `{event_id, duplicate}` for a message that is safe now, 200 for one that was known."""
        verify(
            self._settings.webhook_secret,
            request.headers,
            request.body,
            now_s=time.time(),
            tolerance_s=self._settings.webhook_tolerance_s,
        )
        defaults = {"platform_id": request.path} if request.path else {}
        message = read(request.body, channel_type=CHANNEL, defaults=defaults)
        if self._accept is None:
            raise DependencyDownError("The gateway is stopping.", fix="Send it again.")
        accepted = self._accept(message)
        body = {"event_id": accepted.event_id, "duplicate": accepted.duplicate}
        return HttpAnswer(200 if accepted.duplicate else 202, body)
