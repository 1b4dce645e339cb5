"""Local names of places: from a row's routing to a name, and the part of the system prompt that lists them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent_runner.rows import Destination, Route


def find(destinations: Iterable[Destination], name: str) -> Destination | None:
    return next((destination for destination in destinations if destination.name == name), None)


def name_of(destinations: Iterable[Destination], origin: Route) -> str | None:
    """The `from` of a message: a destination's name, `unknown:<channel>:<platform id>`, or None without routing."""
    if not origin.channel_type and not origin.platform_id:
        return None
    for destination in destinations:
        target = destination.route()
        if target.complete and target[:2] == origin[:2]:
            return destination.name
    return f"unknown:{origin.channel_type or ''}:{origin.platform_id or ''}"


def addendum(assistant_name: str, destinations: Sequence[Destination]) -> str:
    """What the system prompt says beyond the agent's own instructions: who it is, and how and to whom it writes."""
    return "\n\n".join(part for part in (_identity(assistant_name), _sending(destinations)) if part)


def _identity(name: str) -> str:
    if not name:
        return ""
    return (
        f"# You are {name}\n\n"
        "Use this name when somebody asks who you are, when you introduce yourself and when you sign."
    )


def _sending(destinations: Sequence[Destination]) -> str:
    if not destinations:
        return (
            "# Sending messages\n\nYou have no configured destinations, so nothing you write reaches anybody. "
            "An administrator has to wire this agent to a chat or to another agent first."
        )
    if len(destinations) == 1:
        places = f"You can write to one destination: {_listed(destinations[0])}."
    else:
        places = "You can write to these destinations:\n\n" + "\n".join(f"- {_listed(d)}" for d in destinations)
    return f"# Sending messages\n\n{places}\n\n{_RULES}"


def _listed(destination: Destination) -> str:
    shown = destination.display_name
    return f"`{destination.name}` ({shown})" if shown and shown != destination.name else f"`{destination.name}`"


_RULES = """\
Wrap each delivered message in `<message to="name">` … `</message>`. One response may hold several such blocks, to the
same or to different destinations. Text outside a block is not delivered; put thinking that nobody should see into
`<internal>` … `</internal>`.

Every message you receive says where it came from (`from="name"`). Unless you are asked to write elsewhere, default to
addressing the destination it came `from`.

The tool `send_message` delivers in the same way while you are still working. Each send is a separate chat message."""
