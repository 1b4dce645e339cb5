"""The life of a gateway process: open the door, start the receivers, serve, and leave nothing half-done.

On SIGTERM or SIGINT it takes no new connections, answers the requests that are under way, closes the receivers,
and commits what was accepted. Signals that are still to be sent leave when the process ends; the sweeps find the
rows of those that do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from nanotasks import logs, signals
from nanotasks.central import database
from nanotasks.channels.contract import AcceptCallable, Adapter
from nanotasks.channels.registry import adapters
from nanotasks.gateway.app import build
from nanotasks.gateway.listener import open_listener, url_of
from nanotasks.gateway.receivers import Receivers
from nanotasks.intake.accept import Acceptor
from nanotasks.settings import Settings

_log = logs.get("gateway")
_DRAIN_S = 10
# Threads wait for commits, which many producers share: more of them cost little and fill the groups.
_THREADS = 32

Ready = Callable[[str], None]


def run(settings: Settings, *, on_ready: Ready | None = None) -> None:
    """Serve until a signal ends it; `on_ready` gets the URL once messages are taken.

    Raises `ConflictError` for a port in use and `ConfigError` for an address that cannot or must not be served.
    """
    with contextlib.closing(open_listener(settings)) as listener:
        acceptor = Acceptor(
            database(settings), max_pending=settings.max_pending_per_chat, ring=functools.partial(signals.ring, "route")
        )
        try:
            Gateway(settings, listener, acceptor.accept, channels=adapters(), on_ready=on_ready).run()
        finally:
            acceptor.close()


class Gateway:
    """One gateway on an open listener, until it is stopped."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        accept: AcceptCallable,
        *,
        channels: Mapping[str, Adapter],
        on_ready: Ready | None = None,
    ) -> None:
        self._listener = listener
        self._receivers = Receivers(settings, channels, accept)
        self._on_ready = on_ready
        app = build(settings, database(settings), self._receivers, signals.redis_ok)
        self._http = _HttpServer(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_DRAIN_S,
            )
        )

    @property
    def url(self) -> str:
        """Where it listens."""
        return url_of(self._listener)

    def run(self) -> None:
        """Serve; returns when it was stopped and everything is closed."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """Ask it to stop; callable from any thread and from a signal handler."""
        self._http.should_exit = True

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="gateway"))
        with self._signals(loop):
            await self._receivers.start()
            self._http.when_started = self._announce
            try:
                await self._http.serve(sockets=[self._listener])
            finally:
                await self._receivers.stop()
        _log.info("gateway_closed")

    def _announce(self) -> None:
        _log.info("gateway_open", address=self.url, channels=self._receivers.states)
        if self._on_ready is not None:
            self._on_ready(self.url)

    @contextlib.contextmanager
    def _signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        wanted = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in wanted:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in wanted:
                loop.remove_signal_handler(number)


class _HttpServer(uvicorn.Server):
    """uvicorn without its own signal handling, which would end the process by the signal after a clean stop."""

    when_started: Callable[[], None] = staticmethod(lambda: None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.when_started()
