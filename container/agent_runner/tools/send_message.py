"""`send_message`: deliver a text while the turn goes on."""

from __future__ import annotations

from typing import Any

from agent_runner.outbound import REPLYING_TO
from agent_runner.paths import Workspace
from agent_runner.replies import chat_row
from agent_runner.tools.addressing import resolve, session_files
from agent_runner.tools.contract import Tool, ToolError


def run(workspace: Workspace, arguments: dict[str, Any]) -> str:
    text = arguments.get("text")
    if not text:
        raise ToolError("text is required")
    with session_files(workspace) as (inbound, outbound):
        with inbound.open() as reader:
            address = resolve(reader, arguments.get("to"))
        with outbound.transaction():
            seqs = outbound.insert([chat_row(address.route, text, outbound.state(REPLYING_TO))])
    return f"Message sent to {address.label} (id: {seqs[0]})"


TOOL = Tool(
    "send_message",
    "Send a message to a destination now, while you keep working. Each call is a separate chat message.",
    {
        "type": "object",
        "properties": {
            "to": {
                "type": "string",
                "description": "Name of a destination. May be left out in a conversation (it goes there) "
                "and with a single destination.",
            },
            "text": {"type": "string", "description": "The text of the message"},
        },
        "required": ["text"],
    },
    run,
)
