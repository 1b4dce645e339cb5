"""Signatures of webhooks, in both directions.

    X-Nanotasks-Timestamp: 1772366096                   seconds since the epoch, when it was signed
    X-Nanotasks-Signature: sha256=<64 hex digits>       HMAC-SHA256(secret, timestamp + "." + body)

The timestamp is signed too, so an old request cannot be made young again; within the tolerance a repeated request
is the same message under the same id, which intake takes once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from nanotasks.errors import UnauthorizedError

TIMESTAMP_HEADER = "X-Nanotasks-Timestamp"
SIGNATURE_HEADER = "X-Nanotasks-Signature"
_SCHEME = "sha256="


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The value of the signature header."""
    return _SCHEME + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed_headers(secret: str, now_s: float, body: bytes) -> dict[str, str]:
    """Both headers for a body that is sent now."""
    timestamp = str(int(now_s))
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: sign(secret, timestamp, body)}


def verify(secret: str, headers: Mapping[str, str], body: bytes, *, now_s: float, tolerance_s: float) -> None:
    """Check a request whose header names are in lower case. Raises `UnauthorizedError` that says what is wrong.

    The answer never tells more than the sender knows: not what the signature should have been.
    """
    timestamp = headers.get(TIMESTAMP_HEADER.lower(), "")
    signature = headers.get(SIGNATURE_HEADER.lower(), "")
    if not timestamp or not signature:
        raise UnauthorizedError(
            "The request is not signed.", fix=f"Send the headers {TIMESTAMP_HEADER} and {SIGNATURE_HEADER}."
        )
    expected = sign(secret, timestamp, body)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
        raise UnauthorizedError(
            "The signature is wrong.",
            fix=f'Sign timestamp + "." + body with HMAC-SHA256 and send "{_SCHEME}" and the hex digest.',
        )
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise UnauthorizedError("The timestamp is not a number.", fix=f"{TIMESTAMP_HEADER} has seconds since 1970.")
    age = now_s - int(timestamp)
    if abs(age) > tolerance_s:
        raise UnauthorizedError(
            "The timestamp is too far from now.",
            why=f"It differs by {abs(age):.0f} s and {tolerance_s:.0f} s are allowed.",
            fix="Sign every request anew, and set the clock.",
        )
