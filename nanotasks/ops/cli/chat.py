"""`nanotasks chat`: talk to agents from a terminal, or from a script."""

from __future__ import annotations

from typing import Annotated

import typer

from nanotasks.channels.terminal.protocol import DEFAULT_CHAT, DEFAULT_USER
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings


def register(app: App) -> None:
    """Add `chat`."""
    app.command("chat")(chat)


def chat(
    message: Annotated[str | None, typer.Argument(help="Say this, print the replies, and leave.")] = None,
    chat: Annotated[str, typer.Option("--chat", help="The chat to talk in.")] = DEFAULT_CHAT,
    user: Annotated[str, typer.Option("--user", help="Who you are: user `terminal:<name>`.")] = DEFAULT_USER,
    name: Annotated[str | None, typer.Option("--name", help="The name agents read; the user's by default.")] = None,
    group: Annotated[
        bool, typer.Option("--group", help="It is a group chat: agents are meant only when named with @.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Leave after the first message is answered.")] = False,
    patience: Annotated[
        float | None, typer.Option("--patience", help="Seconds of silence after which a script gives up.", min=0.1)
    ] = None,
) -> None:
    """Talk to an agent in this terminal.

    At a terminal this is a prompt, and Ctrl-D leaves. On a pipe, each line of input is one message, sent when the
    one before is answered; replies are printed on stdout, everything else on stderr.
    """
    from nanotasks.ops.chat import run_chat

    code = run_chat(
        settings(), chat=chat, user=user, name=name, group=group, once=once, message=message, patience_s=patience
    )
    raise typer.Exit(code)
