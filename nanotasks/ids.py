"""Identifiers: `<prefix>-<epoch ms>-<six base-36 characters>`, sortable by time and readable in a log."""

from __future__ import annotations

import secrets

from nanotasks.clock import now_ms

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def random_part(length: int = 6) -> str:
    """Base-36 characters from the system's randomness."""
    number, digits = secrets.randbelow(36**length), ""
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits += _ALPHABET[digit]
    return digits


def new_id(prefix: str) -> str:
    """A fresh identifier such as `sess-1772366096789-k3x9q2`."""
    return f"{prefix}-{now_ms()}-{random_part()}"
