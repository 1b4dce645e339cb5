"""The receiving half of the `terminal` channel: a Unix socket in the gateway.

The socket has mode 0600 in a private directory, so whoever can open it is this user. A lock file beside it says
whether its gateway lives: with the lock in hand a socket that is still there was left by a crash and is replaced.
Pokes tell the connections that something may have come; without Redis they look by themselves every second.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nanotasks import logs, signals
from nanotasks.central import database
from nanotasks.channels.contract import AcceptCallable
from nanotasks.channels.terminal.connection import Connection
from nanotasks.channels.terminal.office import Office
from nanotasks.channels.terminal.protocol import MAILBOX_TOPIC, SOCKET, TYPING_TOPIC
from nanotasks.errors import ConflictError
from nanotasks.paths import socket_path
from nanotasks.settings import Settings

_log = logs.get("terminal")

_STOP_S = 5.0
_HEAR_AGAIN_S = 5.0

Listen = Callable[[Sequence[str], threading.Event], Iterator[tuple[str, dict[str, Any]]]]


class TerminalReceiver:
    """Serves terminal clients. `start` and `stop` belong to one event loop."""

    def __init__(self, settings: Settings, listen: Listen = signals.listen) -> None:
        self._settings = settings
        self._listen = listen
        self._connections: dict[Connection, asyncio.Task[Any] | None] = {}
        self._stopping = threading.Event()
        self._server: asyncio.Server | None = None
        self._office: Office | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lock: int | None = None
        self._path: Path | None = None

    async def start(self, accept: AcceptCallable) -> None:
        """Open the socket. Raises `ConflictError` when another gateway serves it, `ConfigError` for a bad path."""
        path = socket_path(self._settings, SOCKET)
        self._lock = _take(path)
        try:
            listener = _bind(path)
        except OSError:
            self._release()
            raise
        self._path = path
        self._stopping = threading.Event()
        self._office = Office(database(self._settings), accept, self._settings.assistant_name)
        limit = self._settings.max_body_kb * 1024
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=limit)
        self._tasks = [
            asyncio.create_task(self._office.postman.run()),
            asyncio.create_task(self._office.outcomes.run()),
        ]
        hearing = (asyncio.get_running_loop(), self._stopping)
        threading.Thread(target=self._hear, args=hearing, name="terminal-pokes", daemon=True).start()
        _log.info("terminal_open", path=str(path))

    async def stop(self) -> None:
        """Close the socket and every connection, and write what clients confirmed."""
        self._stopping.set()
        if self._server is not None:
            self._server.close()
        serving = [task for task in self._connections.values() if task is not None]
        await asyncio.gather(*(connection.close() for connection in list(self._connections)))
        if serving:
            await asyncio.wait(serving, timeout=_STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if self._office is not None:
                await self._office.postman.finish()
        finally:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            self._release()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._office is not None
        connection = Connection(self._office, reader, writer)
        self._connections[connection] = asyncio.current_task()
        try:
            await connection.run()
        finally:
            del self._connections[connection]

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hear(self, loop: asyncio.AbstractEventLoop, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                for topic, payload in self._listen((MAILBOX_TOPIC, TYPING_TOPIC), stopping):
                    loop.call_soon_threadsafe(self._tell, topic, payload)
            except Exception as error:
                # Pokes only save time, but without them every letter waits for the next look.
                if not stopping.is_set():
                    _log.warning("pokes_unheard", error=repr(error))
                stopping.wait(_HEAR_AGAIN_S)

    def _tell(self, topic: str, payload: dict[str, Any]) -> None:
        if topic == MAILBOX_TOPIC and self._office is not None:
            self._office.postman.look()
        for connection in list(self._connections) if topic == TYPING_TOPIC else ():
            if connection.chat == payload.get("platform_id"):
                connection.show_typing()


def _take(path: Path) -> int:
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConflictError(
            f"Another gateway serves the terminal socket {path}.",
            fix="Stop it, or give this one another NANOTASKS_RUNTIME_DIR.",
        ) from None
    return lock


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    return listener
