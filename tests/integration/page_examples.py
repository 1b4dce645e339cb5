"""The examples of a documentation page: finding, running and comparing them.

An example is a `console` block. A line that begins with `$ ` is a command (lines that begin with `> ` continue it),
the lines after it are what it prints, stdout and stderr together. `…` stands for anything within a line, a line of
`…` alone for any lines; runs of white space count as one space.

A plain `nanotasks` command is run in a process forked from one that has imported it already, since importing takes
longer than most commands; everything else, and what uses the shell, is run by bash.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SHELL = re.compile(r"[|<>$`;&\n]")
_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["nanotasks.ops.cli", "nanotasks.ops.references", "nanotasks.ops.apply", "pydantic"])


@dataclass(frozen=True)
class Example:
    """One command of a page and what it prints."""

    line: int
    command: str
    printed: list[str]

    def fits(self, seen: str) -> bool:
        """Whether this is what the page shows."""
        return pattern_of(self.printed).fullmatch(normal(seen)) is not None


def examples(text: str) -> list[Example]:
    """The examples of a page in order."""
    found: list[Example] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append(Example(number, line[2:], []))
        elif inside and line.startswith("> ") and not found[-1].printed:
            found[-1] = Example(found[-1].line, f"{found[-1].command}\n{line[2:]}", [])
        elif inside:
            found[-1].printed.append(line)
    return found


def pattern_of(printed: list[str]) -> re.Pattern[str]:
    """The expression that the shown lines are."""
    lines = []
    for line in printed:
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            parts = (re.escape(part) for part in " ".join(line.split()).split("…"))
            lines.append(".*?".join(parts) + r"\n")
    return re.compile("".join(lines))


def normal(text: str) -> str:
    """The text with single spaces and no blank at the end of a line."""
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


def run(command: str, variables: Mapping[str, str], folder: Path) -> str:
    """What a command prints."""
    if command.startswith("nanotasks ") and not _SHELL.search(command):
        return _run_forked(shlex.split(command)[1:], variables, folder)
    done = subprocess.run(
        ["bash", "-c", command],
        env=dict(variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout


def _run_forked(words: list[str], variables: Mapping[str, str], folder: Path) -> str:
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "output"
        process = _forking.Process(target=_child, args=(words, dict(variables), str(folder), str(output)))
        process.start()
        process.join(60)
        return output.read_text()


def _child(words: list[str], variables: dict[str, str], folder: str, output: str) -> None:
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    from nanotasks.ops.cli import main

    main(words)
