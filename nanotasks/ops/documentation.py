"""The parts of `docs/` that are made from the code: `python -m nanotasks.ops.documentation` writes them anew.

A part stands between `<!-- NAME: made by nanotasks.ops.documentation -->` and `<!-- end of NAME -->`. A test
compares the pages with what this module would write.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from nanotasks.assets import checkout_root
from nanotasks.settings import describe

WIDTH = 100
PAGES = {"configuration.md": "settings", "command-line.md": "commands"}


def settings_table() -> str:
    """Every setting as a row of a table."""
    lines = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    for row in describe():
        default = f"`{row['default']}`" if row["default"] else ""
        lines.append(f"| `{row['env']}` | {default} | {row['unit']} | {row['meaning'].replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def commands() -> str:
    """The help of every command."""
    from nanotasks.ops.cli.root import CATALOGUE

    parts = []
    for entry in CATALOGUE:
        overview = help_of(entry.name)
        verbs = re.findall(r"^  ([a-z]+) ", overview.partition("\nCommands:\n")[2], re.MULTILINE)
        parts.append(f"### {entry.name}\n\n{entry.summary}")
        for verb in verbs or [""]:
            parts.append(f"```text\n{help_of(*f'{entry.name} {verb}'.split())}\n```")
    return "\n\n".join(parts)


def help_of(*words: str) -> str:
    """What `nanotasks … --help` prints, without the lines that every help has."""
    from nanotasks.ops.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    text = printed.getvalue().partition("\n\n--json, anywhere")[0]
    kept = [line.rstrip() for line in text.splitlines() if not line.strip().startswith("-h, --help")]
    if kept[-1] == "Options:":
        kept = kept[:-1]
    return "\n".join(kept).strip()


def renewed(page: str, text: str) -> str:
    """The page with its made part made anew. Raises `ValueError` when its marks are missing."""
    name = PAGES[page]
    begin, end = f"<!-- {name}: made by nanotasks.ops.documentation -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has no part {name}")
    part = settings_table() if name == "settings" else commands()
    return f"{before}{begin}\n{part}\n{end}{after}"


def write(folder: Path) -> None:
    """Make the parts of every page in `folder` anew."""
    for page in PAGES:
        path = folder / page
        path.write_text(renewed(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    os.environ["COLUMNS"] = str(WIDTH)
    root = checkout_root()
    if root is None:
        raise SystemExit("The documentation is part of a source checkout; this is an installed package.")
    write(root / "docs")
