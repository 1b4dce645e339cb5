"""`nanotasks up`, `gateway`, `worker`, `beat`, `flower`: the processes."""

from __future__ import annotations

from typing import Annotated

import typer


def register(root: typer.Typer) -> None:
    """Add the process commands to the command line."""
    root.command("up")(up)
    root.command("gateway")(gateway)
    root.command("worker")(worker)
    root.command("beat")(beat)
    root.command("flower")(flower)


def up(
    chat: Annotated[
        bool, typer.Option("--chat/--no-chat", help="Chat with an agent here, or only run until Ctrl-C.")
    ] = True,
) -> None:
    """Run everything on this machine, with a chat in front of it.

    A private Redis, a worker, beat and a gateway start, and stop again at the end of the chat (Ctrl-D). With piped
    input each line is a message, each reply is printed, and the end of the input is the end.
    """
    from nanotasks.ops.up import run_up

    raise typer.Exit(run_up(chat=chat))


def gateway() -> None:
    """Run the gateway: receivers of the channels, webhooks, the terminal's socket, health."""
    from nanotasks import logs
    from nanotasks.central import database
    from nanotasks.central.migrate import require_usable
    from nanotasks.gateway import server
    from nanotasks.settings import settings

    config = settings()
    logs.configure(config.log_level, config.log_format)
    require_usable(database(config))
    server.run(config)


def worker() -> None:
    """Run a worker of this host. Several may run on one host; a stopped one leaves its agents running."""
    from nanotasks.ops.worker import run_worker

    raise typer.Exit(run_worker())


def beat() -> None:
    """Run the clock that sends the periodic signals. Two are as good as one."""
    from nanotasks.ops.beat import run_beat

    raise typer.Exit(run_beat())


def flower() -> None:
    """Run Flower, the live view of workers, tasks and retries."""
    from nanotasks.ops.flower import run_flower

    run_flower()
