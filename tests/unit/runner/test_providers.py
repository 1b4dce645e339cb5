"""The registry, and the mock provider."""

from __future__ import annotations

import pytest

from agent_runner import providers
from agent_runner.providers.contract import Activity, Init, Prompt, ProviderOptions, QueryInput, Result
from agent_runner.providers.demo import DemoProvider
from agent_runner.providers.mock import MockProvider


@pytest.mark.parametrize(("name", "made"), [("demo", DemoProvider), ("mock", MockProvider)])
def test_providers_are_made_by_name(options: ProviderOptions, name: str, made: type) -> None:
    """What `container.json` names."""
    assert isinstance(providers.create(name, options), made)


def test_an_unknown_provider_names_the_known_ones(options: ProviderOptions) -> None:
    """So that the operator can mend it."""
    with pytest.raises(providers.UnknownProviderError, match=r"Unknown provider: nope\. Known: demo, mock"):
        providers.create("nope", options)


def test_a_name_is_registered_once() -> None:
    """Two modules cannot fight over one."""
    with pytest.raises(ValueError, match="already registered: demo"):
        providers.register("demo", DemoProvider)


def test_the_mock_answers_every_input(options: ProviderOptions) -> None:
    """In order, and what is pushed before the end is answered too."""
    query = MockProvider(options).query(QueryInput(Prompt("one"), None, "", ""))
    query.push(Prompt("two"))
    query.end()
    kinds = [type(event) for event in query.events()]
    assert kinds == [Activity, Init, Activity, Result, Activity, Result]


def test_the_mock_can_be_aborted(options: ProviderOptions) -> None:
    """Nothing more comes."""
    query = MockProvider(options).query(QueryInput(Prompt("one"), None, "", ""))
    query.abort()
    assert [event for event in query.events() if isinstance(event, Result)] == []
