"""Names of places, and the system prompt's part about them."""

from __future__ import annotations

from agent_runner.destinations import addendum, find, name_of
from agent_runner.replies import nudge
from agent_runner.rows import Destination, Route

FAMILY = Destination("family", "Family Chat", "channel", "tg", "tg:100", None)
WORK = Destination("work", "work", "channel", "dc", "dc:g1", None)
WORKER = Destination("worker-1", "", "agent", None, None, "ag-b")
RULE = "default to addressing the destination it came `from`"


def flat(text: str) -> str:
    return " ".join(text.split())


def test_several_destinations_are_listed() -> None:
    """With how to write to them."""
    text = addendum("", [FAMILY, WORK, WORKER])
    assert all(part in text for part in ("- `family` (Family Chat)", "- `work`\n", "- `worker-1`\n"))
    assert all(
        part in flat(text) for part in ("Wrap each delivered message", '<message to="name">', 'from="name"', RULE)
    )


def test_a_single_destination_is_named() -> None:
    """Wrapping is asked for all the same."""
    text = addendum("", [FAMILY])
    assert "`family` (Family Chat)" in text
    assert RULE in flat(text)


def test_no_destination_says_so() -> None:
    """And does not explain what cannot be done."""
    text = addendum("", [])
    assert "no configured destinations" in text
    assert RULE not in flat(text)


def test_the_agent_learns_its_name() -> None:
    """If it has one."""
    assert addendum("Andy", []).startswith("# You are Andy")
    assert "You are" not in addendum("", [])


def test_another_agent_is_known_by_its_group() -> None:
    """Its rows carry the channel type `agent` and the group's id."""
    assert name_of([FAMILY, WORKER], Route("agent", "ag-b", None)) == "worker-1"
    assert name_of([FAMILY, WORKER], Route("agent", "ag-z", None)) == "unknown:agent:ag-z"
    assert WORKER.route() == Route("agent", "ag-b", None)


def test_a_half_known_place_is_nobodys() -> None:
    """Even if a destination lacks the same half."""
    broken = Destination("broken", "", "channel", "tg", None, None)
    assert name_of([broken], Route("tg", None)) == "unknown:tg:"


def test_names_are_found_exactly() -> None:
    """The display name is no name."""
    assert find([FAMILY], "family") is FAMILY
    assert find([FAMILY], "Family Chat") is None


def test_the_nudge_tells_what_was_wrong() -> None:
    """An unwrapped answer, or the names that do not exist."""
    assert "was not wrapped" in nudge([], [FAMILY, WORK])
    assert "Your destinations: family, work." in nudge([], [FAMILY, WORK])
    unknown = nudge(["nobody", "nobody", "else"], [])
    assert 'no destination named "nobody", "else"' in unknown
    assert "wrapped:" not in unknown
    assert "Your destinations: (none)." in unknown
