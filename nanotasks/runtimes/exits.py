"""Words for the end of an agent: what an operator must understand, in one line."""

from __future__ import annotations

import signal

_LAST_LINE_CHARS = 300


def describe_exit(code: int | None, *, log: str = "", out_of_memory_mb: int = 0) -> str:
    """`ended by itself`, `exit code 3: <last log line>`, `killed by SIGKILL`, `out of memory (limit 512 MiB)`."""
    if out_of_memory_mb:
        return f"out of memory (limit {out_of_memory_mb} MiB)"
    if code is None:
        return "lost: it was killed together with its launcher, or the machine restarted"
    if code == 0:
        return "ended by itself"
    if code > 128:
        return f"killed by {signal_name(code - 128)}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f"exit code {code}" + (f": {lines[-1][:_LAST_LINE_CHARS]}" if lines else "")


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
