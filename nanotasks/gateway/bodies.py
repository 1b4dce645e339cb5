"""Request bodies, read with a cap on their size and on the time they take; more is never buffered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request

from nanotasks.gateway.problems import BodyTooLargeError, BodyTooSlowError

READ_TIMEOUT_S = 30.0
_DISCARD_BYTES = 16 * 1024 * 1024


async def read_body(request: Request, limit_kb: int, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """The whole body. Raises `BodyTooLargeError` at once when its length is declared, else as soon as it is known."""
    limit = limit_kb * 1024
    stream = request.stream()
    try:
        async with asyncio.timeout(timeout_s):
            body = await _collect(stream, limit) if _declared(request) <= limit else None
            if body is None and "expect" not in request.headers:
                await _discard(stream)
    except TimeoutError:
        raise BodyTooSlowError(why=f"It took more than {timeout_s:g} s.", fix="Send it again.") from None
    if body is None:
        raise BodyTooLargeError(
            why=f"At most {limit_kb} KiB are taken.", fix="Send less, or raise NANOTASKS_MAX_BODY_KB on the gateway."
        )
    return body


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isdigit() else 0


async def _collect(stream: AsyncIterator[bytes], limit: int) -> bytes | None:
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Read on for a while, keeping nothing: whoever is still sending when we hang up never sees our answer."""
    left = _DISCARD_BYTES
    async for chunk in stream:
        left -= len(chunk)
        if left < 0:
            return
