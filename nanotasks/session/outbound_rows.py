"""Turning the columns of a `messages_out` row, which may hold anything, into an `OutboundRow` or a `BadRow`."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import Any

from nanotasks.clock import parse_ms
from nanotasks.domain.timestamps import read_ms
from nanotasks.session.rows import BadRow, OutboundRow, TaskReport

_TEXTS = ("id", "timestamp", "kind", "content")
_TEXTS_OR_NULL = ("in_reply_to", "deliver_after", "platform_id", "channel_type", "thread_id")
# The ledger finds rows by these, and an index of PostgreSQL has no room for more than two and a half of them.
_NAMES = ("id", "in_reply_to", "platform_id", "channel_type")
MAX_NAME_BYTES = 1024
_EPOCH = re.compile(r"\d{9,10}|\d{12,13}", re.ASCII)
_COLUMNS = (
    "rowid",
    "id",
    "seq",
    "in_reply_to",
    "timestamp",
    "deliver_after",
    "deliver_after_ms",
    "kind",
    "platform_id",
    "channel_type",
    "thread_id",
    "content",
)


def read_row(values: tuple[Any, ...]) -> OutboundRow | BadRow:
    """One row of the query `messages_after`."""
    row = dict(zip(_COLUMNS, values, strict=True))
    reason = _fault(row)
    text = row.pop("deliver_after")
    if reason is None and text is not None and row["deliver_after_ms"] is None:
        row["deliver_after_ms"] = _instant(text)
        if row["deliver_after_ms"] is None:
            reason = f"deliver_after is no time: {text[:40]!r}"
    if reason is None:
        return OutboundRow(**row)
    return BadRow(row["rowid"], row["id"] if isinstance(row["id"], str) else None, reason)


def read_report(values: tuple[Any, ...]) -> TaskReport:
    """One row of the query `task_report`. What is no text, or no time, reads as None."""
    claimed, ended, *texts = (value.replace("\0", "") if isinstance(value, str) else None for value in values)
    return TaskReport(read_ms(claimed or ""), read_ms(ended or ""), *texts)


def _fault(row: dict[str, Any]) -> str | None:
    for name in _TEXTS:
        if not isinstance(row[name], str):
            return f"{name} is not a text"
    if not row["id"]:
        return "id is empty"
    for name in _TEXTS_OR_NULL:
        if row[name] is not None and not isinstance(row[name], str):
            return f"{name} is not a text"
    for name in _NAMES:
        if row[name] is not None and len(row[name].encode()) > MAX_NAME_BYTES:
            return f"{name} is longer than {MAX_NAME_BYTES} bytes"
    if row["seq"] is not None and not isinstance(row["seq"], int):
        return "seq is not an integer"
    return None


def _instant(text: str) -> int | None:
    """Forms of a time that SQLite's `datetime()` does not read, but somebody may write."""
    if _EPOCH.fullmatch(text):
        return int(text) if len(text) > 10 else int(text) * 1000
    found = read_ms(text.removesuffix(" UTC"))
    found = parse_ms(text) if found is None else found
    return _mail_date(text) if found is None else found


def _mail_date(text: str) -> int | None:
    try:
        return round(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
