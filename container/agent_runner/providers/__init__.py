"""The providers by name. A new one is a module with a factory and one line at the end of this file."""

from __future__ import annotations

from collections.abc import Callable

from agent_runner.providers import demo, mock
from agent_runner.providers.contract import Provider, ProviderOptions

Factory = Callable[[ProviderOptions], Provider]
_FACTORIES: dict[str, Factory] = {}


class UnknownProviderError(Exception):
    """`container.json` names a provider that this runner does not have."""


def register(name: str, factory: Factory) -> None:
    if name in _FACTORIES:
        raise ValueError(f"Provider already registered: {name}")
    _FACTORIES[name] = factory


def create(name: str, options: ProviderOptions) -> Provider:
    """The provider called `name`. Raises `UnknownProviderError`, which lists the known ones."""
    factory = _FACTORIES.get(name)
    if factory is None:
        raise UnknownProviderError(f"Unknown provider: {name}. Known: {', '.join(sorted(_FACTORIES))}")
    return factory(options)


register("demo", demo.DemoProvider)
register("mock", mock.MockProvider)
