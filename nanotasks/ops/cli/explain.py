"""`nanotasks explain`: the story of one message, and what happens next."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nanotasks.clock import now_ms
from nanotasks.ops.cli.central import reading
from nanotasks.ops.cli.output import is_json, plain, relative, show_one, show_text
from nanotasks.ops.cli.root import Command


def register(root: typer.Typer) -> None:
    """Add `explain` to the command line."""
    root.command("explain", cls=Command)(show_story)


def show_story(
    message: Annotated[
        str,
        typer.Argument(
            metavar="MESSAGE",
            help="An event, a delivery, an outbound message, or the platform's id of a message; a beginning will do.",
        ),
    ],
) -> None:
    """Tell what happened to a message, in order, and what happens next.

    Everything comes from the central database, so it can be told when nothing else runs.
    """
    from nanotasks.ops.explain import explain

    with reading() as session:
        story = explain(session, message)
    if is_json():
        show_one(story)
    else:
        _print(story)


def _print(story: dict[str, Any]) -> None:
    from nanotasks.clock import iso

    show_one({name: value for name, value in story["message"].items() if value is not None})
    show_text("")
    timeline = story["timeline"]
    for entry in timeline:
        after_s = (entry["at"] - timeline[0]["at"]) / 1000
        show_text(f"{iso(entry['at'])[11:23]}  +{after_s:<9.3f} {plain(entry['text'])}")
    show_text("")
    for step in story["next"]:
        when = "" if step["at"] is None else f", {relative(step['at'], now_ms())}"
        show_text(f"next: {plain(step['what'])}{when}")
