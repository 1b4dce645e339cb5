"""What an outbound webhook sends, and what each kind of answer means."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from nanotasks.channels.conformance import outbound
from nanotasks.channels.contract import (
    DestinationError,
    PermanentError,
    RateLimitedError,
    SendError,
    TransientError,
    UnknownOutcomeError,
)
from nanotasks.channels.webhook.sender import WebhookSender
from nanotasks.channels.webhook.signature import verify
from nanotasks.settings import Settings
from nanotasks.testing import HttpAnswers, HttpRecorder, free_port


@pytest.fixture
def platform() -> Iterator[HttpRecorder]:
    """The server that is posted to."""
    made = HttpRecorder()
    yield made
    made.close()


@pytest.fixture
def sender(platform: HttpRecorder) -> Iterator[WebhookSender]:
    """A sender to it."""
    made = WebhookSender(Settings(webhook_secret="secret", webhook_outbound_url=platform.url + "?key=hidden"))
    yield made
    made.close()


def test_a_post_is_signed_and_carries_its_key(sender: WebhookSender, platform: HttpRecorder) -> None:
    """The other side can verify it, and knows an attempt of the same delivery by its Idempotency-Key."""
    for attempt in (1, 2):
        sender.send(outbound("d-1", "hello", attempt=attempt), 5)
    for attempt, call in enumerate(platform.calls, start=1):
        verify("secret", call.headers, call.body, now_s=time.time(), tolerance_s=5)
        assert call.headers["idempotency-key"] == "d-1"
        assert call.headers["content-type"] == "application/json"
        assert json.loads(call.body)["attempt"] == attempt


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"id": "m-7"}', "m-7"),
        (b'{"id": 7}', "7"),
        (b"{}", None),
        (b"[7]", None),
        (b"", None),
        (b"not json", None),
        (b'{"id": ""}', None),
        (b"x" * 1_000_000, None),
    ],
)
def test_the_answer_may_name_the_message(
    sender: WebhookSender, platform: HttpRecorder, body: bytes, name: str | None
) -> None:
    """And may be anything else, of any length."""
    platform.answers = HttpAnswers(status=201, body=body)
    assert sender.send(outbound("d-1"), 5).platform_message_id == name


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, DestinationError),
        (400, PermanentError),
        (401, DestinationError),
        (403, DestinationError),
        (404, DestinationError),
        (408, TransientError),
        (409, TransientError),
        (410, DestinationError),
        (413, PermanentError),
        (422, PermanentError),
        (425, TransientError),
        (429, TransientError),
        (500, TransientError),
        (502, TransientError),
        (503, TransientError),
    ],
)
def test_a_status_has_its_meaning(
    sender: WebhookSender, platform: HttpRecorder, status: int, kind: type[SendError]
) -> None:
    """And is told without the path, the query or the secret."""
    platform.answers = HttpAnswers(status=status, headers={"Location": "http://elsewhere.test"})
    with pytest.raises(SendError) as caught:
        sender.send(outbound("d-1"), 5)
    assert type(caught.value) is kind
    assert str(status) in str(caught.value)
    assert not any(private in str(caught.value) for private in ("hook", "hidden", "secret="))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("999999", 86400, 86400),
        (formatdate(time.time() + 3600, usegmt=True), 1800, 3600),
        (formatdate(time.time() - 3600, usegmt=True), 0, 0),
    ],
    ids=["seconds", "none", "too long", "date", "date that has passed"],
)
def test_retry_after_is_honoured(
    sender: WebhookSender, platform: HttpRecorder, status: int, header: str, least: int, most: int
) -> None:
    """Seconds or a date, at most a day."""
    platform.answers = HttpAnswers(status=status, headers={"Retry-After": header})
    with pytest.raises(RateLimitedError) as caught:
        sender.send(outbound("d-1"), 5)
    assert least <= caught.value.retry_after_s <= most


@pytest.mark.parametrize("header", ["soon", "-5", "", "1.5"])
def test_an_unreadable_retry_after_is_passed_over(sender: WebhookSender, platform: HttpRecorder, header: str) -> None:
    """Then our own pause applies."""
    platform.answers = HttpAnswers(status=429, headers={"Retry-After": header})
    with pytest.raises(TransientError):
        sender.send(outbound("d-1"), 5)


def test_nobody_there_is_transient(sender: WebhookSender) -> None:
    """Nothing was written, so it is safe to try again."""
    away = WebhookSender(Settings(webhook_secret="s", webhook_outbound_url=f"http://127.0.0.1:{free_port()}/"))
    with pytest.raises(TransientError, match="cannot be reached"):
        away.send(outbound("d-1"), 5)
    away.close()


def test_no_answer_is_an_unknown_outcome(sender: WebhookSender, platform: HttpRecorder) -> None:
    """The request was written, so it may have arrived."""
    platform.answers = HttpAnswers(cut=True)
    with pytest.raises(UnknownOutcomeError):
        sender.send(outbound("d-1"), 5)


def test_a_slow_answer_ends_with_the_channel_s_own_deadline(platform: HttpRecorder) -> None:
    """The shorter of the call's deadline and the setting."""
    platform.answers = HttpAnswers(drip=True)
    sender = WebhookSender(Settings(webhook_secret="s", webhook_outbound_url=platform.url, webhook_timeout_s=0.3))
    started = time.monotonic()
    with pytest.raises(UnknownOutcomeError, match=r"within 0\.3 s"):
        sender.send(outbound("d-1"), 30)
    assert time.monotonic() - started < 5
    sender.close()


@pytest.mark.parametrize("url", ["", "ftp://x.test", "http://", "http://[::1", "no url", "http://x.test:99999"])
def test_an_unusable_address_is_retried_and_named(url: str) -> None:
    """A configuration can be mended; the message waits."""
    sender = WebhookSender(Settings(webhook_secret="s", webhook_outbound_url=url))
    with pytest.raises(TransientError, match="NANOTASKS_WEBHOOK_OUTBOUND_URL"):
        sender.send(outbound("d-1"), 5)
