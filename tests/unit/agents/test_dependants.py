"""What depends on a thing is known in full, so that a delete never meets a foreign key that it did not name."""

from __future__ import annotations

import pytest

from nanotasks.agents import dependants
from nanotasks.central import Base

# Parts of the thing itself, which go with it, and rows that only belong to it through its sessions.
NOT_DEPENDANTS = {
    "agent_groups": {"container_configs", "deliveries", "inbound_routes", "instances"},
    "messaging_groups": set(),
    "users": set(),
    "sessions": set(),
}
OWN_PARTS = {"agent_groups": {"agent_destinations"}}


@pytest.mark.parametrize(
    ("table", "kinds"),
    [
        ("agent_groups", dependants.of_group("x")),
        ("messaging_groups", dependants.of_chat("x")),
        ("users", dependants.of_user("x")),
        ("sessions", dependants.of_session("x")),
    ],
)
def test_every_reference_is_a_dependant_a_part_or_cascades(table: str, kinds: list[dependants.Kind]) -> None:
    """A new foreign key to one of these tables has to say what becomes of it when the row goes."""
    named = {kind.model.__tablename__ for kind in kinds}
    for other in Base.metadata.sorted_tables:
        for key in other.foreign_keys:
            if key.column.table.name != table or key.ondelete == "CASCADE":
                continue
            known = named | NOT_DEPENDANTS[table] | OWN_PARTS.get(table, set())
            assert other.name in known, f"{other.name}.{key.parent.name}"
