"""Ids of rows written here: `<prefix>-<epoch ms>-<6 base-36 characters>`, the form of NanoClaw 2."""

from __future__ import annotations

import os
import time

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def new_id(prefix: str) -> str:
    tail = "".join(_DIGITS[byte % 36] for byte in os.urandom(6))
    return f"{prefix}-{int(time.time() * 1000)}-{tail}"
