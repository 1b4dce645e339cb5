"""`nanotasks hosts`: the machines of an installation, and keeping new agent groups off one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nanotasks.ops.cli.central import after_moves, opened, reading, writing
from nanotasks.ops.cli.output import is_json, say, show_list, show_one, show_result
from nanotasks.ops.cli.root import App
from nanotasks.settings import settings

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.ops.hosts import Moment

app = App(help="Hosts. A host is one machine with a data directory, workers and a container runtime.")
COLUMNS = ("id", "state", "silent", "heartbeat_at", "storage", "groups", "live_instances", "leases", "oldest_due_at")

HostRef = Annotated[str, typer.Argument(metavar="HOST", help="A host: its id.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]


def register(root: typer.Typer) -> None:
    """Add `hosts` to the command line."""
    root.add_typer(app, name="hosts")


@app.command("list")
def list_hosts() -> None:
    """List the hosts: state, last heartbeat, and how much each has."""
    from nanotasks.ops import hosts

    with reading() as session:
        rows = hosts.listed(session, _moment(session))
    show_list(rows, COLUMNS, empty="No host has started yet.")


@app.command("show")
def show_host(host: HostRef) -> None:
    """Show one host with its agent groups, live instances and held leases."""
    from nanotasks.ops import hosts

    with reading() as session:
        row = hosts.shown(session, host, _moment(session))
    show_one(row)


@app.command("drain")
def drain_host(host: HostRef, dry_run: DryRun = False) -> None:
    """Place no new agent groups on a host, and move those that live there to hosts with the same shared directory.

    Where there is no such host, they stay and go on working.
    """
    from nanotasks.ops import hosts

    if dry_run:
        with reading() as session:
            plan = hosts.plan_drain(session, host, _moment(session))
    else:
        with writing() as tx:
            plan = hosts.plan_drain(tx.session, host, _moment(tx.session))
            moves = hosts.drain(tx.session, host)
            tx.audit("hosts.drain", host, {"from": "up", "moved": [moved.agent_group_id for moved in moves]})
            plan |= {
                "groups_moving": len(moves),
                "groups_staying": plan["groups_staying"] + plan["groups_moving"] - len(moves),
            }
        after_moves(moves)
    row = {**plan, "dry_run": dry_run, "state": "up" if dry_run else "draining"}
    if is_json():
        show_one(row)
        return
    would = "would " if dry_run else ""
    show_result(row, "id", f"No new agent groups {'would be' if dry_run else 'are'} placed on {host}.")
    if plan["groups_moving"]:
        say(f"{plan['groups_moving']} agent groups {would}move to other hosts; their agents are started anew there.")
    say(f"{plan['groups_staying']} agent groups {would}stay there; {plan['live_instances']} agents run.")
    if not plan["others_up"]:
        say("No other host is up: new agent groups wait until one is.")


@app.command("undrain")
def undrain_host(host: HostRef) -> None:
    """Let a draining host get new agent groups again."""
    from nanotasks.ops import hosts

    with writing() as tx:
        state = hosts.undrain(tx.session, host, _moment(tx.session))
        tx.audit("hosts.undrain", host, {"to": state})
    show_result({"id": host, "state": state}, "id", f"The host {host} is {state}.")


def _moment(session: Session) -> Moment:
    from nanotasks.ops.hosts import Moment

    config = settings()
    return Moment(opened(config).now_ms(session), config.host_timeout_s)
