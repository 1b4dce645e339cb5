"""How an error is told: what, why and what to do, on stderr, and the exit code that says which kind it is."""

from __future__ import annotations

import json
import traceback
from typing import Any

import typer

from nanotasks.errors import ConflictError, NanotasksError, UsageError
from nanotasks.ops.cli.output import is_json, plain
from nanotasks.ops.suggest import did_you_mean

INTERRUPTED = 130
BROKEN_PIPE = 141


class InternalError(NanotasksError):
    """Something happened that nobody foresaw."""

    code = "internal"


def report(error: BaseException) -> int:
    """Tell the error on stderr and return the exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    known = _known(error)
    if is_json():
        typer.echo(json.dumps(known.as_json()), err=True)
    else:
        typer.echo("error: " + plain(known.what, keep="\n"), err=True)
        for line in [*known.why.splitlines(), *known.fix.splitlines()]:
            typer.echo("  " + plain(line), err=True)
    return known.exit_code


def _known(error: BaseException) -> NanotasksError:
    if isinstance(error, NanotasksError):
        return error
    if isinstance(error, typer.TyperException):
        return _usage(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return NanotasksError(f"{where}{error.strerror or error}.", fix="Check that it exists and may be used.")
    if type(error).__name__ == "IntegrityError":
        return ConflictError("Another change came in between.", why=str(error).splitlines()[0], fix="Try again.")
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    return InternalError(
        f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
        why=", ".join(f"It happened in {one.filename}, line {one.lineno}." for one in frame),
        fix="This is a defect of nanotasks; what the command began was undone.",
    )


def _usage(error: typer.TyperException) -> UsageError:
    """A parser's complaint in our form. Its classes are private to Typer, so its attributes tell the kind."""
    context: Any = getattr(error, "ctx", None)
    help_hint = f"See `{context.command_path} --help`." if context is not None else ""
    usage = " ".join(context.get_usage().split()) if context is not None else ""
    option = getattr(error, "option_name", None)
    if option is not None and context is not None and hasattr(error, "possibilities"):
        known = [name for param in context.command.get_params(context) for name in param.opts if name[0] == "-"]
        known.append("--json")
        return UsageError(f"There is no option {option}.", why=usage, fix=did_you_mean(option, known) or help_hint)
    return UsageError(error.format_message().rstrip(".") + ".", why=usage, fix=help_hint)
