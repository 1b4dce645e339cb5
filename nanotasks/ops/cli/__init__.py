"""The command line `nanotasks`.

Data on stdout, words on stderr. Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 conflict, 69 something does
not answer, 78 configuration. `--json` anywhere on the line prints exact JSON, errors included.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from nanotasks import __version__
from nanotasks.errors import UsageError
from nanotasks.ops.cli import output
from nanotasks.ops.cli.errors import BROKEN_PIPE, report
from nanotasks.ops.cli.root import App, Root

app = App(cls=Root, add_completion=True, context_settings={"help_option_names": ["--help", "-h"]})


def _version(wanted: bool) -> None:
    if wanted:
        if output.is_json():
            output.show_one({"version": __version__})
        else:
            typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A durable, distributed host for chat agents.

    Start with `nanotasks up`, then talk to an agent with `nanotasks chat`.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command line (`sys.argv` by default) and exit with its code."""
    words, wants_json = _without_json(list(sys.argv[1:] if arguments is None else arguments))
    output.use_json(wants_json)
    _prepare_streams()
    try:
        _require_text(words)
        code = typer.main.get_command(app).main(args=words or ["--help"], prog_name="nanotasks", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away; Python's own flush at exit must not complain about it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    except SystemExit:
        raise
    except BaseException as error:
        code = report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _without_json(words: list[str]) -> tuple[list[str], bool]:
    """The words before `--` without `--json`, and whether it was there."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--json"]
    return kept + words[end:], len(kept) < end


def _require_text(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is not UTF-8 text.", fix="Check the encoding of your terminal.") from None


def _prepare_streams() -> None:
    """A closed stream swallows what it gets; one that cannot show a character shows its escape."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
