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
PAGES = {"configuration.md": ("settings",), "command-line.md": ("commands",), "events.md": ("events", "metrics")}


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


def events() -> str:
    """Every kind of event with its fields."""
    from nanotasks.watch.kinds import KINDS

    lines = ["| event | when | fields |", "|---|---|---|"]
    for kind in KINDS:
        lines.append(f"| `{kind.name}` | {kind.meaning} | {', '.join(f'`{name}`' for name in kind.fields)} |")
    return "\n".join(lines)


def metrics() -> str:
    """Every metric with its labels."""
    from nanotasks.watch.catalogue import METRICS

    lines = ["| metric | type | labels | unit | meaning |", "|---|---|---|---|---|"]
    for one in METRICS:
        labels = ", ".join(f"`{name}`" for name in one.labels)
        lines.append(f"| `{one.name}` | {one.type} | {labels} | {one.unit} | {one.meaning} |")
    return "\n".join(lines)


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


_PARTS = {"settings": settings_table, "commands": commands, "events": events, "metrics": metrics}


def renewed(page: str, text: str) -> str:
    """The page with its made parts made anew. Raises `ValueError` when the marks of one are missing."""
    for name in PAGES[page]:
        text = _with_part(page, name, text)
    return text


def _with_part(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: made by nanotasks.ops.documentation -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has no part {name}")
    return f"{before}{begin}\n{_PARTS[name]()}\n{end}{after}"


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
