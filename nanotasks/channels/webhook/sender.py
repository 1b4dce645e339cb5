"""The sending half of the `webhook` channel: one signed POST per message.

    {"delivery_id", "attempt", "platform_id", "thread_id", "kind", "content", "files": [{"name", "size", "data"}]}

`data` is base64. The header `Idempotency-Key` is the delivery id, the same for every attempt. The answer may name
the message: a JSON object with `id`. What an answer means:

    2xx                     sent
    408 409 425 429 5xx     not this time; `Retry-After` is honoured. 409 is how the Idempotency-Key draft says that
                            the same key is being worked on
    401 403 404 407 410     the destination: a wrong secret, or nobody there; 3xx too, since redirects are not followed
    other 4xx               this message will never be taken
    none                    before anything was written: not this time; after that nobody knows
"""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from nanotasks.channels.contract import (
    DestinationError,
    OutboundMessage,
    PermanentError,
    RateLimitedError,
    SendError,
    Sent,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.channels.webhook.client import Answer, HttpClient, PostError
from nanotasks.channels.webhook.signature import signed_headers
from nanotasks.settings import Settings

_TRANSIENT = {408, 409, 425, 429}
_DESTINATION = {401, 403, 404, 407, 410}
_RETRY_AFTER_MAX_S = 24 * 3600.0
_QUOTED_CHARACTERS = 200


class WebhookSender:
    """Posts messages to the configured URL. Errors name its host, never its path, query or the secret."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: HttpClient | None = None
        self._lock = threading.Lock()

    def send(self, message: OutboundMessage, deadline_s: float) -> Sent:
        """Post one message. Raises the `SendError` that the answer, or its absence, means."""
        url = self._settings.webhook_outbound_url
        where = _host_of(url)
        body = _body(message)
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": message.delivery_id,
            "User-Agent": "nanotasks",
            **signed_headers(self._settings.webhook_secret, time.time(), body),
        }
        try:
            answer = self._http().post(url, body, headers, min(deadline_s, self._settings.webhook_timeout_s))
        except PostError as error:
            if error.written:
                raise UnknownOutcomeError(f"{where} did not answer.", why=f"{error}.") from None
            raise TransientError(f"{where} cannot be reached.", why=f"{error}.") from None
        if 200 <= answer.status < 300:
            return Sent(_message_id(answer.body))
        raise _failure(where, answer)

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _http(self) -> HttpClient:
        with self._lock:
            if self._client is None:
                self._client = HttpClient()
            return self._client


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = None, ""
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise TransientError(
            "The webhook channel has no address to send to.",
            fix="Set NANOTASKS_WEBHOOK_OUTBOUND_URL to an http or https URL.",
        )
    return f"{parts.scheme}://{parts.hostname}{port}"


def _body(message: OutboundMessage) -> bytes:
    files = [
        {"name": file.name, "size": len(file.data), "data": base64.b64encode(file.data).decode()}
        for file in message.files
    ]
    fields = {
        "delivery_id": message.delivery_id,
        "attempt": message.attempt,
        "platform_id": message.address.platform_id,
        "thread_id": message.address.thread_id,
        "kind": message.kind,
        "content": message.content,
        "files": files,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def _message_id(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    name = answer.get("id") if isinstance(answer, dict) else None
    return str(name)[:_QUOTED_CHARACTERS] if isinstance(name, str | int) and name != "" else None


def _failure(where: str, answer: Answer) -> SendError:
    what = f"{where} answered {answer.status}."
    said = answer.body[:_QUOTED_CHARACTERS].decode("utf-8", "replace").strip()
    why = f"It said: {said}" if said.isprintable() and said else ""
    if answer.status in _TRANSIENT or answer.status >= 500:
        pause = _retry_after_s(answer.headers.get("retry-after", ""))
        return (
            RateLimitedError(what, why=why, retry_after_s=pause) if pause is not None else TransientError(what, why=why)
        )
    if answer.status in _DESTINATION or answer.status < 400:
        return DestinationError(what, why=why, fix="Check NANOTASKS_WEBHOOK_OUTBOUND_URL and the shared secret.")
    return PermanentError(what, why=why)


def _retry_after_s(text: str) -> float | None:
    """Seconds of a Retry-After header (RFC 9110: a number or a date), at most a day; None when it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), _RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, moment.timestamp() - time.time()), _RETRY_AFTER_MAX_S)
