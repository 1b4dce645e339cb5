"""Words for the end of an agent: what an operator must understand, in one line."""

from __future__ import annotations

import json
import re
import signal

_LAST_LINE_CHARS = 300
# The runner's own lines: a time, a level, an event.
_ERROR = re.compile(r"\S+ error ")
_WORD = re.compile(r"\d{4}-\S+ (?:debug|info|warning) ")


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
    lines = [_as_text(line.strip()) for line in log.splitlines() if line.strip()]
    # The runner says why it ends as an error; what it logged beside that explains nothing.
    errors = [line for line in lines if _ERROR.match(line)]
    last = (errors or [line for line in lines if not _WORD.match(line)] or [""])[-1]
    return f"exit code {code}" + (f": {last[:_LAST_LINE_CHARS]}" if last else "")


def _as_text(line: str) -> str:
    """A line of the runner's log in JSON, as it would be in text."""
    if not line.startswith("{"):
        return line
    try:
        fields = json.loads(line)
        head = [str(fields.pop(name)) for name in ("timestamp", "level", "event")]
    except (ValueError, KeyError):
        return line
    fields.pop("session", None)
    return " ".join([*head, *(f"{name}={value}" for name, value in fields.items())])


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for one that has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
