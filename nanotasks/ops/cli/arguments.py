"""Arguments and options that several commands share, and how given options become changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from nanotasks.clock import now_ms
from nanotasks.domain.timestamps import read_moment
from nanotasks.errors import UsageError
from nanotasks.ops.cli.output import is_for_people
from nanotasks.ops.suggest import one_of

NONE = "none"

GroupRef = Annotated[str, typer.Argument(metavar="GROUP", help="An agent group: its id, folder or name.")]
ChatRef = Annotated[str, typer.Argument(metavar="CHAT", help="A chat: its id, channel:platform_id or name.")]
UserRef = Annotated[str, typer.Argument(metavar="USER", help="A user: the id, such as file:alice, or the name.")]
SessionRef = Annotated[str, typer.Argument(metavar="SESSION", help="A session: its id or the beginning of it.")]
OfGroup = Annotated[str | None, typer.Option("--group", metavar="GROUP", help="Only of this agent group.")]
OfChat = Annotated[str | None, typer.Option("--chat", metavar="CHAT", help="Only of this chat.")]
OfUser = Annotated[str | None, typer.Option("--user", metavar="USER", help="Only of this user.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="Delete what depends on it too.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=0, metavar="N", help="At most so many rows; 0 means all. 100 on a terminal, else all."),
]


def rows_wanted(limit: int | None) -> int:
    """How many rows a list has (0: all): as asked for, else a screen or two for a person and all for a program."""
    return (100 if is_for_people() else 0) if limit is None else limit


def choice(option: str, words: Iterable[str], help: str) -> Any:
    """An option that takes one of these words, suggests the nearest, and completes them in a shell."""
    known = tuple(words)
    parse = one_of(known, option)
    return typer.Option(option, parser=parse, metavar="|".join(known), help=help, autocompletion=lambda: list(known))


def one_of_argument(metavar: str, words: Iterable[str], help: str) -> Any:
    """A positional argument that takes one of these words."""
    known = tuple(words)
    return typer.Argument(parser=one_of(known, metavar), metavar=metavar, help=help, autocompletion=lambda: list(known))


def json_option(option: str, metavar: str, help: str) -> Any:
    """An option whose value is JSON."""

    def parse(text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError as error:
            raise UsageError(
                f"{option} is not JSON.", why=str(error), fix=f"Write it like {option} '{metavar}'."
            ) from None

    return typer.Option(option, parser=parse, metavar="JSON", help=f"{help}, such as '{metavar}'.")


def moment_option(option: str, help: str) -> Any:
    """An option whose value is a moment: an age such as 30m, 2h or 3d, or a date with or without a time."""

    def parse(text: str) -> int:
        moment = read_moment(text, now_ms())
        if moment is None:
            raise UsageError(
                f"{option} cannot be {text!r}.", fix="Give an age such as 30m, 2h or 3d, or 2026-03-01T12:00:00Z."
            )
        return moment

    return typer.Option(option, parser=parse, metavar="WHEN", help=f"{help}: 30m, 2h, 3d, or a date and time in UTC.")


def future_option(option: str, help: str) -> Any:
    """An option whose value is a moment to come: a span such as 30m, 2h or 3d from now, or a date and time."""

    def parse(text: str) -> int:
        now = now_ms()
        ago = read_moment(text, now)
        if ago is None:
            raise UsageError(
                f"{option} cannot be {text!r}.", fix="Give a span such as 30m, 2h or 3d, or 2031-03-01T12:00:00Z."
            )
        # `read_moment` takes a span for an age.
        return 2 * now - ago if is_span(text) else ago

    return typer.Option(option, parser=parse, metavar="WHEN", help=f"{help}: 30m, 2h, 3d from now, or a time in UTC.")


def is_span(text: str) -> bool:
    """Whether a text is a span of time, such as 30m."""
    return text.strip()[:1].isdigit() and text.strip()[-1:].lower() in "smhdw"


def number_option(option: str, metavar: str, help: str) -> Any:
    """An option whose value is a whole number or `none`."""

    def parse(text: str) -> Any:
        if text == NONE:
            return text
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"{option} cannot be {text!r}.", fix="Give a whole number, or none.") from None

    return typer.Option(option, parser=parse, metavar=metavar, help=help)


def given(options: dict[str, Any], nullable: Iterable[str] = ()) -> dict[str, Any]:
    """The options that were given, by field; the word `none` empties a field that may be empty."""
    may_be_empty = set(nullable)
    return {
        name: None if value == NONE and name in may_be_empty else value
        for name, value in options.items()
        if value is not None
    }


def require_some(changes: dict[str, Any], example: str) -> None:
    """Raise `UsageError` when an update was given nothing to change."""
    if not changes:
        raise UsageError("There is nothing to change.", fix=f"Give an option, for example {example}.")
