"""The receivers of this gateway: one per enabled channel that has one, each started, retried and stopped on its own.

A channel that cannot start stops no other. What another process or the configuration causes is reported once and
left; anything else (a platform that does not answer) is tried again with growing pauses.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from nanotasks import logs
from nanotasks.channels.contract import AcceptCallable, Adapter, HttpReceiver, Receiver
from nanotasks.errors import ConfigError, ConflictError
from nanotasks.settings import Settings

_log = logs.get("gateway")
_PAUSES_S = (2.0, 5.0, 10.0, 60.0)
_STOP_S = 10.0


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a plain function in a thread, or a coroutine function on this loop, whichever it is."""
    result = await asyncio.to_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result


class Receivers:
    """All receivers of one gateway. `states` says for each channel: `open`, `retrying` or `failed`."""

    def __init__(self, settings: Settings, adapters: Mapping[str, Adapter], accept: AcceptCallable) -> None:
        self._accept = accept
        self._made = {
            name: adapter.receiver(settings)
            for name, adapter in adapters.items()
            if adapter.receiver is not None and adapter.enabled(settings)
        }
        self._retries: list[asyncio.Task[None]] = []
        self.states: dict[str, str] = {}

    def http(self, channel_type: str) -> HttpReceiver | None:
        """The open receiver of a channel whose platform calls us."""
        receiver = self._made.get(channel_type)
        return receiver if self.states.get(channel_type) == "open" and isinstance(receiver, HttpReceiver) else None

    async def start(self) -> None:
        """Start every receiver; returns when each is open, has failed, or will be tried again."""
        for name, receiver in self._made.items():
            if not await self._start(name, receiver):
                self._retries.append(asyncio.create_task(self._retry(name, receiver)))

    async def stop(self) -> None:
        """Stop every receiver; one that does not stop in time is left behind."""
        for task in self._retries:
            task.cancel()
        for name, receiver in self._made.items():
            if self.states.pop(name, "") != "open":
                continue
            try:
                async with asyncio.timeout(_STOP_S):
                    await call(receiver.stop)
            except Exception as error:
                _log.warning("receiver_stop_failed", channel=name, error=repr(error))

    async def _start(self, name: str, receiver: Receiver) -> bool:
        try:
            await call(receiver.start, self._accept)
        except (ConfigError, ConflictError) as error:
            self.states[name] = "failed"
            _log.error("receiver_failed", channel=name, error=str(error))
            return True
        except Exception as error:
            self.states[name] = "retrying"
            _log.warning("receiver_not_started", channel=name, error=repr(error))
            return False
        self.states[name] = "open"
        return True

    async def _retry(self, name: str, receiver: Receiver) -> None:
        pauses = iter(_PAUSES_S)
        while True:
            await asyncio.sleep(next(pauses, _PAUSES_S[-1]))
            if await self._start(name, receiver):
                return
