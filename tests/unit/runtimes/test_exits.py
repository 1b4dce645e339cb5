"""Words for the end of an agent."""

from __future__ import annotations

import pytest

from nanotasks.runtimes.exits import describe_exit


@pytest.mark.parametrize(
    ("code", "log", "memory_mb", "words"),
    [
        (0, "bye\n", 0, "ended by itself"),
        (1, "", 0, "exit code 1"),
        (3, "first\nlast words\n\n", 0, "exit code 3: last words"),
        (1, "2026-01-01T00:00:00.000Z info prompt ids=m2\n", 0, "exit code 1"),
        (1, "12:00 error failed error=no\n2026-01-01T00:00Z info bye\n", 0, "exit code 1: 12:00 error failed error=no"),
        (
            1,
            '{"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "prompt", "ids": ["m"]}\n',
            0,
            "exit code 1",
        ),
        (
            1,
            '{"timestamp": "12:00", "level": "error", "event": "failed", "session": "s", "error": "no"}\n{}\n',
            0,
            "exit code 1: 12:00 error failed error=no",
        ),
        (78, "x" * 1000, 0, "exit code 78: " + "x" * 300),
        (137, "ignored", 0, "killed by SIGKILL"),
        (137, "", 512, "out of memory (limit 512 MiB)"),
        (255, "", 0, "killed by signal 127"),
        (None, "", 0, "lost: it was killed together with its launcher, or the machine restarted"),
    ],
)
def test_describe_exit(code: int | None, log: str, memory_mb: int, words: str) -> None:
    """One line that an operator understands."""
    assert describe_exit(code, log=log, out_of_memory_mb=memory_mb) == words
