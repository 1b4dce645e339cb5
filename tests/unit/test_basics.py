"""Clock, ids, owners, errors and logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanotasks import errors, faults
from nanotasks.clock import iso, parse_ms
from nanotasks.ids import new_id
from nanotasks.owners import Owner, boot_id, is_dead, this_owner


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_an_instant_survives_its_text(ms: int) -> None:
    """Milliseconds to ISO text and back lose nothing."""
    assert parse_ms(iso(ms)) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-03-01T12:34:56.789Z", 1772368496789),
        ("2026-03-01 12:34:56", 1772368496000),  # SQLite's form carries no zone and is UTC
        ("2026-03-01T14:34:56+02:00", 1772368496000),
        ("2026-03-01", 1772323200000),
        ("tomorrow", None),
        ("", None),
    ],
)
def test_timestamps_of_both_forms_are_read(text: str, ms: int | None) -> None:
    """ISO and SQLite text are instants, text without a zone is UTC, anything else is None."""
    assert parse_ms(text) == ms


def test_ids_are_unique_and_say_what_they_are() -> None:
    """A thousand ids differ and carry their prefix."""
    made = {new_id("sess") for _ in range(1000)}
    assert len(made) == 1000 and all(ident.startswith("sess-") for ident in made)


def test_an_owner_survives_its_text() -> None:
    """The text form names the same process."""
    me = this_owner("host/with/slashes")
    assert Owner.parse(str(me)) == me
    assert Owner.parse("garbage") is None


def test_a_process_is_dead_when_it_ended_or_its_pid_was_reused() -> None:
    """A live owner is not dead; an ended one, a reused pid and another boot are."""
    me = this_owner("h")
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert not is_dead(me, "h")
    assert is_dead(Owner("h", boot_id(), child.pid, 1), "h")
    assert is_dead(Owner("h", boot_id(), os.getpid(), me.start_time + 1), "h")
    assert is_dead(Owner("h", "another-boot", me.pid, me.start_time), "h")
    assert not is_dead(Owner("elsewhere", "b", 1, 1), "h")


def test_a_process_that_counts_pids_apart_is_never_called_dead() -> None:
    """A worker of this host in a container of its own: its pid means nothing here, and it may well be alive."""
    boot = boot_id().partition("@")[0]
    assert not is_dead(Owner("h", f"{boot}@1", 1, 1), "h")
    assert is_dead(Owner("h", "another-boot@1", 1, 1), "h")


def test_an_error_explains_itself() -> None:
    """The docstring is the default text, and the parts appear in order."""
    error = errors.NotFoundError(why="Because.", fix="Look elsewhere.")
    assert str(error) == "There is nothing with that id. Because. Look elsewhere."
    assert error.as_json() == {
        "code": "not_found",
        "what": "There is nothing with that id.",
        "why": "Because.",
        "fix": "Look elsewhere.",
    }


def test_the_sentences_of_an_error_are_apart() -> None:
    """A reason of another program often has no full stop."""
    assert str(errors.ConfigError("No.", why="no such host", fix="Look")) == "No. no such host. Look"


def test_exit_codes_are_the_documented_ones() -> None:
    """Scripts rely on these numbers."""
    codes = {kind.code: kind.exit_code for kind in errors.NanotasksError.__subclasses__()}
    assert codes["usage"] == 2 and codes["not_found"] == 3 and codes["conflict"] == 4
    assert codes["dependency_down"] == 69 and codes["configuration"] == 78


def test_logs_mask_secrets() -> None:
    """A field whose name says secret never shows its value."""
    script = (
        "from nanotasks import logs; logs.configure('info','json'); logs.get('x').info('e', webhook_secret='hush', n=1)"
    )
    line = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
    assert json.loads(line)["webhook_secret"] == "***" and "hush" not in line


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_values(form: str) -> None:
    """The local variables of a failing function, which may be a message, stay out of the log."""
    script = (
        "from nanotasks import logs\n"
        f"logs.configure('info', '{form}')\n"
        "def fail(text):\n    raise ValueError\n"
        "try:\n    fail('very ' + 'private')\n"
        "except ValueError:\n    logs.get('x').exception('failed')\n"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr
    assert "ValueError" in output and "very private" not in output


def test_a_fault_that_was_armed_leaves_no_file_open() -> None:
    """A test may arm thousands of them."""
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir()))
    for _ in range(3):
        with faults.armed("ring.after_bell"):
            faults.point("sweep.after_mark")
    assert len(list(open_files.iterdir())) == before
