"""The tests notice when a guard is gone."""

from __future__ import annotations

import pytest

from tests.faults.guards import GUARDS, Guard
from tests.faults.mutations import copy_of_project, notices, remove


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name.replace(" ", "-"))
def test_without_the_guard_the_tests_go_red(guard: Guard) -> None:
    """The guard is removed in a copy of the project, where its tests then fail."""
    with copy_of_project() as copy:
        remove(guard, copy)
        red, said = notices(guard, copy)
    assert red, f"without it ({guard.promise}) the tests {guard.tests} still pass:\n{said}"
