"""The root of the command line: a catalogue of commands whose modules are imported only when they are used.

Building all commands takes longer than most of them run, so `nanotasks --help` reads the catalogue alone. Each
module offers `register(app)`, which adds its commands to a Typer application.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from nanotasks.errors import UsageError
from nanotasks.ops.suggest import did_you_mean

F = TypeVar("F", bound=Callable[..., Any])

_JSON_HINT = "--json, anywhere on the line, prints exact JSON."


@dataclass(frozen=True)
class Entry:
    """One command of the root: where it is made, and its line in the help. `alias` is a hidden second name."""

    name: str
    section: str
    module: str
    summary: str
    alias: str = ""


CATALOGUE = (
    Entry("up", "Run", "processes", "Run everything on this machine, with a chat in front."),
    Entry("chat", "Run", "chat", "Talk to an agent in this terminal."),
    Entry("gateway", "Run", "processes", "Run the gateway: channels, webhooks, health."),
    Entry("worker", "Run", "processes", "Run a worker of this host."),
    Entry("beat", "Run", "processes", "Run the clock that sends the periodic signals."),
    Entry("flower", "Run", "processes", "Run Flower, the live view of tasks and retries."),
    Entry("groups", "Arrange", "groups", "Agent groups: one agent each.", "group"),
    Entry("chats", "Arrange", "chats", "Chats: conversation places of the channels."),
    Entry("wirings", "Arrange", "wirings", "Wirings: which agent listens in which chat.", "wiring"),
    Entry("users", "Arrange", "users", "Users: people on a channel.", "user"),
    Entry("roles", "Arrange", "roles", "Roles: owners and admins.", "role"),
    Entry("members", "Arrange", "members", "Members: who may talk to an agent group.", "member"),
    Entry("destinations", "Arrange", "destinations", "Destinations: where an agent may send to.", "destination"),
    Entry("apply", "Arrange", "state", "Make the groups, chats, wirings and people of a file so."),
    Entry("export", "Arrange", "state", "Print groups, chats, wirings and people in the form of apply."),
    Entry("status", "Look", "status", "Show hosts, queues, sessions and deliveries on one screen."),
    Entry("explain", "Look", "explain", "Tell what happened to a message, and what happens next."),
    Entry("sessions", "Look", "sessions", "Sessions: conversations of the agents.", "session"),
    Entry("intake", "Look", "intake", "Messages on their way in; replay recorded ones."),
    Entry("deliveries", "Look", "deliveries", "Deliveries: messages on their way out.", "delivery"),
    Entry("tasks", "Look", "task", "Scheduled tasks: make, look, run, pause, backfill.", "task"),
    Entry("runs", "Look", "run", "Runs of scheduled tasks: what happened, and once more.", "run"),
    Entry("retries", "Look", "retry", "What waits for another try: look, try now, give up.", "retry"),
    Entry("dead", "Look", "dead", "What was given up: look, retry, discard."),
    Entry("hosts", "Look", "hosts", "Hosts: machines; keep new agent groups off one.", "host"),
    Entry("events", "Look", "events", "Print what happened, or follow what happens, as JSON lines."),
    Entry("metrics", "Look", "metrics", "Print the metrics that Prometheus reads."),
    Entry("settings", "Look", "settings", "List the settings and their values."),
    Entry("db", "Maintain", "db", "Upgrade or check the central database."),
    Entry("image", "Maintain", "image", "Build or show the agents' container image."),
)
_BY_NAME = {name: entry for entry in CATALOGUE for name in (entry.name, entry.alias) if name}


class Group(TyperGroup):
    """A group that answers a missing or unknown command with the known ones."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            raise UsageError(f"`{ctx.command_path}` needs a command.", fix=f"There are: {self._commands(ctx)}.")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            raise UsageError(
                f"There is no command `{ctx.command_path} {name}`.",
                fix=did_you_mean(name, known) or f"There are: {self._commands(ctx)}.",
            )
        return super().resolve_command(ctx, args)

    def _commands(self, ctx: Any) -> str:
        return ", ".join(self.list_commands(ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        _write_hint(formatter)


class Command(TyperCommand):
    """A command whose help mentions what works on every command."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        # Typer puts braces around what is required; square brackets around what is not are enough.
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        super().format_epilog(ctx, formatter)
        _write_hint(formatter)


def _write_hint(formatter: Any) -> None:
    formatter.write_paragraph()
    formatter.write_text(_JSON_HINT)


class App(typer.Typer):
    """A Typer application in our manner: plain help, suggestions, no pretty exceptions."""

    def __init__(self, **options: Any) -> None:
        defaults = {"cls": Group, "rich_markup_mode": None, "add_completion": False, "pretty_exceptions_enable": False}
        super().__init__(**{**defaults, **options})

    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        return super().command(name, **{"cls": Command, **options})


class Root(Group):
    """The root group: knows every command by the catalogue, and makes one when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in CATALOGUE]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _BY_NAME.get(cmd_name)
        if entry is None:
            return None
        if entry.name not in self.commands:
            self.commands.update(_made_by(entry.module))
        return self.commands[entry.name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in dict.fromkeys(entry.section for entry in CATALOGUE):
            with formatter.section(section):
                formatter.write_dl([(e.name, e.summary) for e in CATALOGUE if e.section == section])


def _made_by(module: str) -> dict[str, Any]:
    app = App()
    importlib.import_module(f"nanotasks.ops.cli.{module}").register(app)
    app.callback()(lambda: None)
    return dict(typer.main.get_group(app).commands)
