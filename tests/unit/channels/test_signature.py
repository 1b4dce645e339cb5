"""Webhook signatures: what is signed, and what does not pass."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from nanotasks.channels.webhook.signature import sign, signed_headers, verify
from nanotasks.errors import UnauthorizedError

NOW = 1_772_366_096.5
BODY = b'{"id":"1"}'


def check(headers: dict[str, str], body: bytes = BODY, now_s: float = NOW) -> None:
    verify("secret", {name.lower(): value for name, value in headers.items()}, body, now_s=now_s, tolerance_s=300)


def test_the_signature_is_hmac_sha256_over_timestamp_dot_body() -> None:
    """As documented, so that anybody can compute it."""
    expected = hmac.new(b"secret", b"1772366096." + BODY, hashlib.sha256).hexdigest()
    assert sign("secret", "1772366096", BODY) == f"sha256={expected}"


def test_a_signed_body_passes() -> None:
    """For as long as the tolerance, in both directions of the clock."""
    headers = signed_headers("secret", NOW, BODY)
    check(headers)
    check(headers, now_s=NOW + 299)
    check(headers, now_s=NOW - 299)


@pytest.mark.parametrize("name", ["X-Nanotasks-Timestamp", "X-Nanotasks-Signature"])
@pytest.mark.parametrize("value", ["", "x", "-1", "é", "1e9", "9" * 400, "sha256=" + "0" * 64])
def test_a_changed_header_does_not_pass(name: str, value: str) -> None:
    """Missing, garbled or forged."""
    with pytest.raises(UnauthorizedError):
        check({**signed_headers("secret", NOW, BODY), name: value})


def test_a_changed_body_does_not_pass() -> None:
    """Not by a byte."""
    with pytest.raises(UnauthorizedError, match="signature is wrong"):
        check(signed_headers("secret", NOW, BODY), BODY + b" ")


@pytest.mark.parametrize("drift_s", [302, -302])
def test_an_old_request_does_not_pass(drift_s: int) -> None:
    """Nor one from the future; the answer says how far it is off."""
    with pytest.raises(UnauthorizedError, match="300 s are allowed"):
        check(signed_headers("secret", NOW + drift_s, BODY))


def test_a_signature_over_an_odd_timestamp_does_not_pass() -> None:
    """Even one made with the secret."""
    headers = {"X-Nanotasks-Timestamp": "now", "X-Nanotasks-Signature": sign("secret", "now", BODY)}
    with pytest.raises(UnauthorizedError, match="not a number"):
        check(headers)
