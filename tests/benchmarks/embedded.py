"""What `nanotasks up` costs at rest, without agents and Flower."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanotasks.testing import wait_for
from tests.benchmarks.figures import repeated
from tests.benchmarks.stack import ROOT

RUNS = 2
SETTLE_S = 8
REST_S = 15


def measure() -> Iterator[tuple[str, dict[str, Any]]]:
    """Memory in proportion to what is shared, and the share of a core, of the whole process tree."""
    memory, share, ready = zip(*(_one_run() for _ in range(RUNS)), strict=True)
    yield "memory_at_rest", repeated(memory, "MiB PSS", max=300.0)
    yield "cpu_at_rest", repeated(share, "% of a core", max=2.0)
    yield "first_start", repeated(ready, "s")


def _one_run() -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(prefix="nt-bench-") as directory:
        log = Path(directory) / "up.log"
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        variables = {
            **kept,
            "NANOTASKS_DATA_DIR": f"{directory}/data",
            "NANOTASKS_RUNTIME_DIR": f"{directory}/run",
            "NANOTASKS_RUNTIME": "process",
            "NANOTASKS_GATEWAY_PORT": "0",
        }
        started = time.monotonic()
        with log.open("wb") as output:
            up = subprocess.Popen(
                [sys.executable, "-m", "nanotasks", "up", "--no-chat"],
                cwd=ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            wait_for(lambda: "nanotasks is up" in log.read_text(), 60, what="nanotasks up")
            ready = time.monotonic() - started
            time.sleep(SETTLE_S)
            return (*_at_rest(_tree(up.pid)), ready)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(60)


def _tree(root: int) -> list[int]:
    """A process and all its descendants."""
    parents = {int(entry.name): _stat(entry)[1] for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == str(pid)]
    return found


def _at_rest(pids: list[int]) -> tuple[float, float]:
    before, began = sum(map(_cpu_s, pids)), time.monotonic()
    time.sleep(REST_S)
    share = (sum(map(_cpu_s, pids)) - before) / (time.monotonic() - began) * 100
    return sum(map(_pss_kb, pids)) / 1024, share


def _stat(process: Path) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, which may contain anything; empty for one that is gone."""
    try:
        text = (process / "stat").read_text()
    except OSError:
        return ["", ""]
    return text[text.rindex(")") + 2 :].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(Path(f"/proc/{pid}"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss_kb(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), flags=re.MULTILINE)
    return int(found[1]) if found else 0
