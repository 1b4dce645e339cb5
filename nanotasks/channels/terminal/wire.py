"""The writing side of one terminal connection."""

from __future__ import annotations

import asyncio
from typing import Any

from nanotasks.channels.terminal.protocol import encode

_CONGESTED_BYTES = 1024 * 1024
_MAX_BYTES = 16 * 1024 * 1024
_CLOSE_S = 1.0


class Wire:
    """Sends frames to one client without ever waiting for it, so that a slow one holds up nobody else."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @property
    def is_congested(self) -> bool:
        """Whether the client has much to read already, or is gone."""
        return self._writer.is_closing() or self._unread > _CONGESTED_BYTES

    def send(self, frame_type: str, **fields: Any) -> None:
        """Write one frame. A client that reads nothing for long is cut off; its letters are safe."""
        if self._writer.is_closing():
            return
        self._writer.write(encode(frame_type, fields))
        if self._unread > _MAX_BYTES:
            self._writer.transport.abort()

    def hint(self, frame_type: str, **fields: Any) -> None:
        """Write a frame that nobody misses, unless earlier ones are still to be read."""
        if self._unread == 0:
            self.send(frame_type, **fields)

    async def close(self) -> None:
        """Close the connection; a client that does not read what is left has a second for it."""
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass

    @property
    def _unread(self) -> int:
        return self._writer.transport.get_write_buffer_size()
