"""`nanotasks events`: what happened, and what happens, as JSON lines."""

from __future__ import annotations

import select
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from nanotasks.errors import DependencyDownError
from nanotasks.ops.cli.arguments import OfGroup, moment_option
from nanotasks.ops.cli.central import open_central, reading
from nanotasks.ops.cli.output import say
from nanotasks.ops.cli.root import Command
from nanotasks.settings import settings

if TYPE_CHECKING:
    from nanotasks.watch.sources import Only
    from nanotasks.watch.stream import Stream

_AGAIN_S = 1.0

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")]
Since = Annotated[int | None, moment_option("--since", "Only what happened since then")]
OfKind = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="Only these: delivery, or delivery.dead. May be given several times."),
]
OfSession = Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only of this session.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="End after so many.")]


def register(root: typer.Typer) -> None:
    """Add `events` to the command line."""
    root.command("events", cls=Command)(show_events)


def show_events(
    follow: Follow = False,
    since: Since = None,
    kind: OfKind = None,
    session: OfSession = None,
    group: OfGroup = None,
    limit: Limit = None,
) -> None:
    """Print changes of state as JSON lines, the oldest first; docs/events.md lists them with their fields.

    With --follow and without --since it begins now. They are read from the central database, so what happened can be
    read when nothing else runs.
    """
    from nanotasks.watch.stream import Stream

    only = _only(kind, session, group)
    db = open_central(settings())
    with db.read() as central:
        now = db.now_ms(central)
    # --since is the first moment that is wanted, a stream begins behind a moment.
    begin = now if follow and since is None else (since or 0) - 1
    stream = Stream(db, only, begin)
    try:
        if follow:
            _follow(stream, limit)
        else:
            _print(stream, limit)
    except KeyboardInterrupt:
        sys.stdout.flush()


def _only(kinds: list[str] | None, session: str | None, group: str | None) -> Only:
    from nanotasks.ops import references
    from nanotasks.watch.kinds import wanted
    from nanotasks.watch.sources import Only

    names = wanted(kinds or ())
    with reading() as central:
        return Only(
            names,
            references.agent_session(central, session).id if session else None,
            references.group(central, group).id if group else None,
        )


def _print(stream: Stream, limit: int | None) -> None:
    for number, event in enumerate(stream.until_now(), 1):
        sys.stdout.write(event.line + "\n")
        if number == limit:
            return


def _follow(stream: Stream, limit: int | None) -> None:
    printed = 0
    told = False
    while True:
        try:
            for event in stream.follow(_wait):
                told = False
                if event is None:
                    sys.stdout.flush()
                    continue
                sys.stdout.write(event.line + "\n")
                printed += 1
                if printed == limit:
                    return
            raise BrokenPipeError
        except DependencyDownError as error:
            # The database may be away for a moment; what happens meanwhile is read when it is back.
            if not told:
                say(f"{error} Going on when it answers.")
            told = True
            time.sleep(_AGAIN_S)


def _wait(seconds: float) -> bool:
    """Wait; False when nobody reads the output any more, which a quiet stream would not notice by writing."""
    watch = select.poll()
    try:
        watch.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):
        time.sleep(seconds)
        return True
    return not any(
        state & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, state in watch.poll(seconds * 1000)
    )
