"""The channels this installation knows, by type: the built-in ones, and what other packages bring.

A package brings a channel by an entry point of the group `nanotasks.channels`, whose name is the channel's type and
whose object is its `Adapter`. One that cannot be loaded is logged and left out; it stops no other.
"""

from __future__ import annotations

import functools
import importlib
import os
from importlib import metadata

from nanotasks import logs
from nanotasks.channels.contract import Adapter, Capabilities, Sender
from nanotasks.errors import ConflictError, NotFoundError
from nanotasks.settings import Settings

_log = logs.get("channels")

ENTRY_POINTS = "nanotasks.channels"
_BUILT_IN = ("terminal", "file", "webhook")
_adapters: dict[str, Adapter] = {}
_senders: dict[tuple[str, Settings, int], Sender] = {}


def register(adapter: Adapter) -> None:
    """Add a channel. Raises `ConflictError` when its type is taken."""
    if adapter.channel_type in _adapters:
        raise ConflictError(
            f"The channel type {adapter.channel_type} is registered already.", fix="Choose another type."
        )
    _adapters[adapter.channel_type] = adapter


def unregister(channel_type: str) -> None:
    """Forget a channel and its senders, for tests that bring their own."""
    _adapters.pop(channel_type, None)
    for key in [key for key in _senders if key[0] == channel_type]:
        del _senders[key]


def adapters() -> dict[str, Adapter]:
    """Every known channel, the built-in ones first."""
    for name in _BUILT_IN:
        if name not in _adapters:
            _adapters[name] = importlib.import_module(f"nanotasks.channels.{name}").ADAPTER
    for name, adapter in _installed().items():
        _adapters.setdefault(name, adapter)
    return _adapters


@functools.cache
def _installed() -> dict[str, Adapter]:
    """What the packages of this environment bring."""
    found: dict[str, Adapter] = {}
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            adapter = point.load()
        except Exception as error:
            _log.error("channel_not_loaded", channel=point.name, package=point.value, error=str(error))
            continue
        if isinstance(adapter, Adapter) and adapter.channel_type == point.name:
            found[point.name] = adapter
        else:
            _log.error("channel_not_loaded", channel=point.name, package=point.value, error="it is no such Adapter")
    return found


def names() -> set[str]:
    """The types of all known channels, without loading any of them."""
    return {*_BUILT_IN, *_adapters, *(point.name for point in metadata.entry_points(group=ENTRY_POINTS))}


def find(channel_type: str) -> Adapter | None:
    """The adapter of a channel type, or None when this installation does not know it."""
    return adapters().get(channel_type)


def capabilities(channel_type: str, settings: Settings) -> Capabilities | None:
    """What a channel can do, or None when this installation does not know it."""
    adapter = find(channel_type)
    return adapter.capabilities(settings) if adapter else None


def sender(channel_type: str, settings: Settings) -> Sender:
    """This process's sender for a channel type. Raises `NotFoundError`: a missing adapter is a retryable failure."""
    adapter = find(channel_type)
    if adapter is None or adapter.sender is None or not adapter.enabled(settings):
        raise NotFoundError(f"No adapter can send to {channel_type}.", fix=f"Configure the {channel_type} channel.")
    key = (channel_type, settings, os.getpid())
    if key not in _senders:
        _senders[key] = adapter.sender(settings)
    return _senders[key]
