"""A private installation of real processes: command line, workers, beats, gateways, in a directory of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nanotasks.central import Database
from nanotasks.channels import file as channel_file
from nanotasks.owners import process_start_time
from nanotasks.runtimes.select import runtime
from nanotasks.settings import Settings, load
from nanotasks.testing import free_port, wait_for

ROOT = Path(__file__).resolve().parents[1]


class Installation:
    """One host: a data directory, and the processes that were started on it. Agents are child processes."""

    def __init__(self, directory: Path, *, redis_url: str = "", **changes: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.settings: Settings = load(
            {
                "NANOTASKS_DATA_DIR": str(directory / "data"),
                "NANOTASKS_RUNTIME_DIR": str(directory / "run"),
                "NANOTASKS_REDIS_URL": redis_url,
                "NANOTASKS_HOST_ID": "here",
                "NANOTASKS_RUNTIME": "process",
                "NANOTASKS_GATEWAY_PORT": str(free_port()),
                "NANOTASKS_TIMEZONE": "UTC",
                **{f"NANOTASKS_{name.upper()}": value for name, value in changes.items()},
            }
        )
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **self.settings.environment(),
            "PYTHONPATH": str(ROOT),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, *words: str, given: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; fails the test unless it exits with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "nanotasks", *words],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{words} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a long-running command in a process group of its own; its output goes to `<command>.log`."""
        return self.start_python("-m", "nanotasks", *words, log=words[0])

    def start_python(self, *arguments: str, log: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{log}.log").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def apply(self, **sections: Any) -> None:
        """Make groups, chats and wirings so, as `nanotasks apply` does."""
        path = self.directory / "state.yaml"
        path.write_text(yaml.safe_dump(sections))
        self.run("apply", "-f", str(path))

    def say(self, messages: list[dict[str, Any]]) -> None:
        """Accept messages of the file channel: `{"id", "platform_id", "text", …}`."""
        self.run("intake", "replay", "-", given="".join(json.dumps(message) + "\n" for message in messages))

    def heard(self, chat: str) -> list[str]:
        """The texts that were delivered to a chat of the file channel, in order."""
        path = channel_file.directory(self.settings) / f"{chat}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [str(json.loads(line)["content"].get("text", "")) for line in lines]

    def counts(self, chats: list[str]) -> Counter[str]:
        """How often each text was delivered, over several chats."""
        return Counter(text for chat in chats for text in self.heard(chat))

    @contextlib.contextmanager
    def central(self) -> Iterator[Database]:
        """The central database, for a look."""
        db = Database(self.settings.central_url)
        yield db
        db.close()

    def log(self, name: str) -> str:
        """What a command has written so far."""
        path = self.directory / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self) -> None:
        """Stop every process, then every agent."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        agents = runtime(self.settings)
        for running in agents.list():
            agents.stop(running.session_id, 1.0, "the test is over")


@contextlib.contextmanager
def installation(directory: Path, *, redis_url: str = "", **changes: str) -> Iterator[Installation]:
    """An installation with a database, stopped at the end whatever happens."""
    made = Installation(directory, redis_url=redis_url, **changes)
    made.run("db", "upgrade")
    try:
        yield made
    finally:
        made.stop()


def children(pid: int) -> list[int]:
    """The pids of all living descendants of a process."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in (int(word) for word in listing.read_text().split()):
            found += [child, *children(child)]
    return found


def named(pids: list[int], name: str) -> list[int]:
    """Those processes that are called `nano:<name>`."""
    return [pid for pid in pids if _comm(pid) == f"nano:{name}"[:15]]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return process_start_time(pid) is None


def wait_until_gone(pids: list[int], timeout_s: float = 20.0) -> None:
    """Wait until none of the processes lives."""
    wait_for(lambda: all(gone(pid) for pid in pids), timeout_s, what=f"the end of {pids}")


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
