"""One message can be followed by its id through the logs of every process, and into its agent's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nanotasks.testing import wait_for
from tests.installation import Installation


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path, log_format="json")
    yield made
    made.stop()


def lines_with(here: Installation, text: str) -> list[dict[str, Any]]:
    """The lines of all logs that name `text`, in the order of their times, each with the log it stands in."""
    found = []
    for path in (here.settings.data_dir / "logs").rglob("*.log"):
        for line in path.read_text().splitlines():
            if text in line:
                found.append(
                    {"log": path.parent.name if path.parent.name == "agents" else path.stem, **json.loads(line)}
                )
    return sorted(found, key=lambda line: str(line["timestamp"]))


def test_a_message_is_followed_by_its_id(here: Installation) -> None:
    """Accepted, routed, appended, woken for, claimed, prompted, answered, delivered: each with ids as fields."""
    here.start("up", "--no-chat")
    wait_for(lambda: "nanotasks is up" in here.log("up"), 30, what="everything is up")
    assert here.run("chat", given="echo between us\n").stdout == "between us\n"
    (accepted,) = [json.loads(line) for line in here.run("events", "--kind", "message.accepted").stdout.splitlines()]
    message = accepted["message"]
    wait_for(lambda: "delivered" in {one["event"] for one in lines_with(here, message)}, what="the last line")
    lines = {one["event"]: one for one in lines_with(here, message)}
    assert {name: line["log"] for name, line in lines.items()} == {
        "accepted": "gateway",
        "routed": "worker",
        "appended": "worker",
        "agent_started": "worker",
        "claimed": "agents",
        "prompt": "agents",
        "answered": "agents",
        "delivered": "worker",
    }
    assert (lines["accepted"]["messages"], lines["accepted"]["events"]) == ([message], [accepted["id"]])
    assert lines["routed"]["messages"] == [message]
    (session,) = lines["routed"]["sessions"]
    assert {lines[name]["session"] for name in ("appended", "agent_started", "claimed", "delivered")} == {session}
    (inbound,) = lines["appended"]["inbound"]
    assert inbound.startswith(f"{message}:")
    assert lines["agent_started"]["inbound"] == lines["claimed"]["ids"] == lines["answered"]["ids"] == [inbound]
    assert lines["delivered"]["in_reply_to"] == inbound
    assert lines["delivered"]["message_out"] in lines["answered"]["sent"]
    by_delivery = lines_with(here, lines["delivered"]["delivery"])
    assert lines["delivered"] in by_delivery
    assert "between us" not in "".join(map(json.dumps, lines.values()))
