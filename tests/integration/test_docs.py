"""The documentation tells the truth: its examples are run, its generated parts are fresh, its links lead somewhere.

All examples of a page run in one folder, one after the other (`page_examples` says how). A page with
`<!-- needs: up -->` has a running `nanotasks up`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nanotasks.ops import documentation
from nanotasks.testing import wait_for
from tests.integration.page_examples import Example, examples, normal, pattern_of, run

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NEEDS_UP = "<!-- needs: up -->"

# What only looks may be repeated until it shows what is awaited: work goes on behind it.
LOOKS = re.compile(r"(cat|tail|ls) [^>]*$|nanotasks (status|export|\w+ (list|show|history))\b")
PATIENCE_S = 20.0


@pytest.mark.parametrize(
    ("printed", "text", "fits"),
    [
        (["a  b"], "a\tb\n", True),
        (["id-… x"], "id-1-2 x\n", True),
        (["a"], "a\nb\n", False),
        (["a", "…", "z"], "a\nb\nc\nz\n", True),
        ([], "", True),
        ([], "oops\n", False),
    ],
)
def test_how_an_example_is_compared(printed: list[str], text: str, fits: bool) -> None:
    """White space is loose, `…` is anything, everything else has to be there."""
    assert bool(pattern_of(printed).fullmatch(normal(text))) is fits


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [p for p in [*PAGES, ROOT / "README.md"] if examples(p.read_text())], ids=lambda page: page.name
)
def test_the_examples_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    """Every command of a page is run and prints what the page shows."""
    text = page.read_text()
    with environment(tmp_path) as variables:
        if NEEDS_UP in text:
            with running_up(variables, tmp_path):
                run_all(examples(text), variables, tmp_path, page)
        else:
            run_all(examples(text), variables, tmp_path, page)


@contextmanager
def environment(folder: Path) -> Iterator[dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NANOTASKS_")}
    programs = folder / "bin"
    programs.mkdir()
    command = programs / "nanotasks"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m nanotasks "$@"\n')
    command.chmod(0o755)
    with tempfile.TemporaryDirectory(prefix="nt-docs-", ignore_cleanup_errors=True) as runtime_dir:
        yield {
            **kept,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NANOTASKS_DATA_DIR": str(folder / "data"),
            "NANOTASKS_RUNTIME_DIR": runtime_dir,
            "NANOTASKS_RUNTIME": "process",
            "NANOTASKS_GATEWAY_PORT": "0",
            "NANOTASKS_HOST_ID": "here",
        }


@contextmanager
def running_up(variables: dict[str, str], folder: Path) -> Iterator[None]:
    log = folder / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nanotasks", "up", "--no-chat"], env=variables, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        wait_for(lambda: "nanotasks is up" in log.read_text(), 60, every_s=0.05, what="nanotasks up")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def run_all(found: list[Example], variables: dict[str, str], folder: Path, page: Path) -> None:
    work = folder / "work"
    work.mkdir()
    for example in found:
        seen = run(example.command, variables, work)
        give_up = time.monotonic() + (PATIENCE_S if LOOKS.match(example.command) else 0)
        while not example.fits(seen) and time.monotonic() < give_up:
            time.sleep(0.1)
            seen = run(example.command, variables, work)
        where = f"{page.name}:{example.line}\n$ {example.command}"
        assert example.fits(seen), "\n".join([where, "--- the page", *example.printed, "--- printed", seen])


@pytest.mark.parametrize("page", sorted(documentation.PAGES))
def test_generated_parts_are_fresh(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and commands are documented as they are; `python -m nanotasks.ops.documentation` makes it so."""
    monkeypatch.setenv("COLUMNS", str(documentation.WIDTH))
    text = (ROOT / "docs" / page).read_text()
    assert documentation.renewed(page, text) == text


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file that is there, and a heading that it has."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
        name, _, heading = target.partition("#")
        other = (page.parent / name).resolve() if name else page
        assert other.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_examples_run(page: Path) -> None:
    """What is shown as Python can be imported as it stands."""
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, page.name, "exec"), {"__name__": page.stem})


def test_every_page_is_in_the_index() -> None:
    """A reader finds every page from the first."""
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        assert page.name == "index.md" or f"({page.name})" in index, page.name
