"""A private installation for measuring: Redis, worker with beat and keeper, gateway, in a directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from nanotasks.ops import redis_server
from nanotasks.paths import socket_path
from nanotasks.settings import Settings, load
from nanotasks.testing import free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
CHATS = 100


class Stack:
    """The processes of one host; `start` returns when the terminal socket takes clients."""

    def __init__(self, directory: Path, runtime: str, **changes: str) -> None:
        self.settings: Settings = load(
            {
                "NANOTASKS_DATA_DIR": str(directory / "data"),
                "NANOTASKS_RUNTIME_DIR": str(directory / "run"),
                "NANOTASKS_HOST_ID": "bench",
                "NANOTASKS_GATEWAY_PORT": str(free_port()),
                "NANOTASKS_RUNTIME": runtime,
                "NANOTASKS_MAX_CONTAINERS": str(2 * CHATS),
                "NANOTASKS_LOG_LEVEL": "warning",
                "NANOTASKS_TIMEZONE": "UTC",
                **changes,
            }
        )
        self.directory = directory
        self.terminal = socket_path(self.settings, "terminal.sock")
        self.redis_socket = socket_path(self.settings, "redis.sock")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and make the described groups and chats."""
        self._processes["redis"] = redis_server.start(self.redis_socket, self.directory / "redis.log")
        wait_for(self.redis_socket.exists, what="the Redis socket")
        self.command("db", "upgrade")
        if self.settings.runtime == "docker":
            # From this machine's own Python: there may be no image registry.
            self.command("image", "base")
            self.command("image", "build", "--base", "nanotasks-base:local")
        for name in ("worker", "beat", "gateway"):
            self.spawn(name)
        wait_for(self.terminal.exists, 30, what=f"the terminal socket; see {self.directory}/gateway.log")
        described = self.directory / "state.yaml"
        described.write_text(yaml.safe_dump(_described()))
        self.command("apply", "-f", str(described))

    def spawn(self, name: str) -> subprocess.Popen[bytes]:
        """Start one of the long-running commands; its output goes to `<name>.log`."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "nanotasks", name],
                cwd=ROOT,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self._processes[name]

    def command(self, *words: str) -> str:
        """Run one command of the command line and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "nanotasks", *words],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str) -> None:
        """Kill one of the commands with all its children, as a crash would."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Stop everything, agents included."""
        for name in ("gateway", "beat", "worker", "redis"):
            process = self._processes.pop(name, None)
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        from nanotasks.runtimes.select import runtime_named

        runtime = runtime_named(self.settings.runtime, self.settings)
        for running in runtime.list():
            runtime.stop(running.session_id, 1.0, "the benchmark is over")

    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, **self.settings.environment()}


def _described() -> dict[str, Any]:
    chats = [{"chat": f"terminal:c{number}", "name": f"c{number}"} for number in range(2 * CHATS)]
    chats.append({"chat": "file:notice", "name": "notice"})
    return {
        "groups": [{"folder": "bench", "name": "Bench", "config": {"provider": "demo"}}],
        "chats": [{**chat, "unknown_sender_policy": "public"} for chat in chats],
        "wirings": [
            {"group": "bench", "chat": chat["chat"], "engage_mode": "pattern", "engage_pattern": "."} for chat in chats
        ],
    }
