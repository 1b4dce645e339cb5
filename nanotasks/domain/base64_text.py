"""Base64 as JavaScript reads it, since attachments come from programs that relied on it."""

from __future__ import annotations

import base64
import re

_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")


def decode_base64(text: str) -> bytes:
    """The bytes of a text in either alphabet, up to the first `=`; anything else is passed over. Never raises."""
    digits = _NOT_BASE64.sub("", text.partition("=")[0].replace("-", "+").replace("_", "/"))
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return base64.b64decode(digits + "=" * (-len(digits) % 4))
