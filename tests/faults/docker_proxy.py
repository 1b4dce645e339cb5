"""A Docker daemon that misbehaves on demand: a proxy on a Unix socket in front of the real one.

    proxy.away() / proxy.back()                    nobody listens, and what was open is cut
    proxy.on("POST /containers/create", HANG)      the daemon never hears of the call, and the caller no answer
    proxy.on("POST .*/start", SWALLOW)             the daemon does what it is asked, and the caller hears nothing
    proxy.on("POST .*/start", CUT)                 the same, and the connection breaks instead of the answer
    proxy.on("GET /containers/json", HALF)         the answer breaks off in its middle
    proxy.on("GET /events", GARBLED)               the stream ends in the middle of an event

A call is its method and its path without the version of the API. Every call has a connection of its own to the
daemon, so that a fault meets one call.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

DAEMON = "/var/run/docker.sock"
_VERSION = re.compile(r"^/v\d+\.\d+(?=/)")
_LOOK_S = 0.05
_HALF_AN_EVENT = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"A\r\n0\r\n\r\n'


class Fault(Enum):
    """What becomes of a call."""

    HANG = auto()
    SWALLOW = auto()
    CUT = auto()
    HALF = auto()
    GARBLED = auto()


HANG, SWALLOW, CUT, HALF, GARBLED = Fault


@dataclass
class Rule:
    """A fault for the calls that match, after the first `skip` of them and for the next `times`."""

    call: re.Pattern[str]
    fault: Fault
    skip: int = 0
    times: float = 1

    def take(self, call: str) -> bool:
        if not self.call.fullmatch(call):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class DockerProxy:
    """Listens at `url`; `calls` are those that came, in their order, and `met` those that met a fault."""

    path: Path
    daemon: str = DAEMON
    calls: list[str] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _door: socket.socket | None = None
    _released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def on(self, call: str, fault: Fault, *, skip: int = 0, times: float = 1) -> None:
        """From now on these calls go wrong."""
        self._rules.append(Rule(re.compile(call), fault, skip, times))

    def mend(self) -> None:
        """No more faults; calls that hang break off."""
        self._rules.clear()
        released, self._released = self._released, threading.Event()
        released.set()

    def back(self) -> None:
        """Listen."""
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.path))
        self._door.listen(64)
        threading.Thread(target=self._listen, args=(self._door,), daemon=True).start()

    def away(self) -> None:
        """Stop listening, and cut every connection."""
        door, self._door = self._door, None
        self.path.unlink(missing_ok=True)
        if door is not None:
            door.shutdown(socket.SHUT_RDWR)
        self.cut()

    def cut(self) -> None:
        """Cut what is open, and go on listening."""
        with self._lock:
            cut = list(self._open)
        for one in cut:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _listen(self, door: socket.socket) -> None:
        with door:
            while True:
                try:
                    caller, _ = door.accept()
                except OSError:
                    return
                threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with self._known(caller), contextlib.suppress(OSError):
            request = _read_request(caller)
            if request is None:
                return
            call, data = request
            with self._lock:
                self.calls.append(call)
                fault = next((rule.fault for rule in self._rules if rule.take(call)), None)
                if fault is not None:
                    self.met.append(call)
            if fault is HANG:
                self._hang(caller)
                return
            if fault is GARBLED:
                caller.sendall(_HALF_AN_EVENT)
                return
            with self._known(socket.socket(socket.AF_UNIX)) as daemon:
                daemon.connect(self.daemon)
                daemon.sendall(data)
                if fault is None:
                    _pump(daemon, caller)
                    return
                answer = _read_all(daemon)
                if fault is SWALLOW:
                    self._hang(caller)
                elif fault is HALF:
                    caller.sendall(answer[: len(answer) - 10])

    def _hang(self, caller: socket.socket) -> None:
        """Until the caller gives up, or the fault is mended."""
        released = self._released
        while not released.wait(_LOOK_S):
            if select.select([caller], [], [], 0)[0]:
                return

    @contextlib.contextmanager
    def _known(self, one: socket.socket) -> Iterator[socket.socket]:
        with self._lock:
            self._open.add(one)
        try:
            yield one
        finally:
            with self._lock:
                self._open.discard(one)
            one.close()


def _read_request(caller: socket.socket) -> tuple[str, bytes] | None:
    """The call, and its bytes with a wish for a connection that ends with the answer; None where nothing came."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = caller.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        more = caller.recv(65536)
        if not more:
            return None
        body += more
    method, target, _ = first.split(" ")
    kept = [line for line in lines if not line.lower().startswith("connection:")]
    forwarded = "\r\n".join([first, *kept, "Connection: close", "", ""]).encode()
    return f"{method} {_VERSION.sub('', target).partition('?')[0]}", forwarded + body


def _pump(daemon: socket.socket, caller: socket.socket) -> None:
    """The daemon's answer to the caller, until either hangs up."""
    while True:
        ready, _, _ = select.select([daemon, caller], [], [])
        if caller in ready:
            return
        data = daemon.recv(65536)
        if not data:
            return
        caller.sendall(data)


def _read_all(daemon: socket.socket) -> bytes:
    parts = []
    while data := daemon.recv(65536):
        parts.append(data)
    return b"".join(parts)


@contextlib.contextmanager
def docker_proxy(daemon: str = DAEMON) -> Iterator[DockerProxy]:
    """A proxy that listens, below a folder whose name is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="nanotasks-docker-"))
    proxy = DockerProxy(folder / "d.sock", daemon)
    proxy.back()
    try:
        yield proxy
    finally:
        proxy.away()
        proxy.mend()
        shutil.rmtree(folder, ignore_errors=True)
