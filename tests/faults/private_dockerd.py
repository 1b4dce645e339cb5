"""A Docker daemon of the test's own, to be restarted at will: own data, own sockets, no network.

It runs in a network namespace of its own: a daemon without a bridge removes `docker0` when it starts, which is the
machine's daemon's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient
from docker.errors import DockerException

from nanotasks.runtimes.docker_client import remove
from nanotasks.testing import wait_for
from tests.conftest import answers
from tests.installation import children

START_S = 60.0


class PrivateDaemon:
    """Listens at `url` while it runs."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.url = f"unix://{folder / 'd.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Whether it answers in time."""
        (self.folder / "pid").unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--net", "dockerd"),
                    f"--host={self.url}",
                    f"--data-root={self.folder / 'data'}",
                    f"--exec-root={self.folder / 'exec'}",
                    f"--pidfile={self.folder / 'pid'}",
                    "--bridge=none",
                    "--iptables=false",
                    "--ip6tables=false",
                    *self.options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for(lambda: self._answers() or self._has_ended(), START_S, what="dockerd answers")
        except AssertionError:
            return False
        return not self._has_ended()

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.folder / "log").read_text()[-2000:]

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _answers(self) -> bool:
        # A client that finds nobody leaves its sockets to the collector.
        if not answers(self.folder / "d.sock"):
            return False
        try:
            self.client().close()
        except DockerException:
            return False  # it listens, and is not ready
        return True

    def client(self) -> APIClient:
        """A client of this daemon."""
        return APIClient(base_url=self.url, version="auto", timeout=60)

    def end(self, number: signal.Signals) -> None:
        """End it by a signal, and wait until it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60)
            # Its containerd dies with it; where nobody reaps that, the next daemon would wait for the dead one.
            (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def clear(self) -> None:
        """End it, and what a killed one leaves behind: its containers, their shims, its containerd."""
        self.end(signal.SIGTERM)
        for pid in self._left_behind():
            for one in [*children(pid), pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        wait_for(lambda: not self._left_behind(), 20, what="the end of what belongs to dockerd")

    def _left_behind(self) -> list[int]:
        """The processes that have this daemon's folder in their arguments."""
        found = []
        for arguments in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if str(self.folder) in arguments.read_text():
                    found.append(int(arguments.parent.name))
        return found


@contextmanager
def private_daemon(image: str, client: Any, *options: str) -> Iterator[PrivateDaemon]:
    """A daemon that has `image`; the test is skipped where none can be started."""
    if os.getuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare"):
        pytest.skip("a private dockerd needs root, dockerd and unshare")
    folder = Path(tempfile.mkdtemp(prefix="nanotasks-dockerd-"))
    daemon = PrivateDaemon(folder, *options)
    try:
        if not daemon.start():
            pytest.skip(f"dockerd does not start: {daemon.log()}")
        own = daemon.client()
        own.load_image(b"".join(client.get_image(image)))
        own.close()
        yield daemon
        own = daemon.client()
        for left in own.containers(all=True):
            remove(own, left["Id"])
        own.close()
    finally:
        daemon.clear()
        for mount in _mounts_below(folder):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    found = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((one for one in found if one.startswith(f"{folder}/")), reverse=True)
