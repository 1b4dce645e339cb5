"""What the gateway refused, in the log: one line a second per channel and status, so that a flood fills no disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from nanotasks import logs

_log = logs.get("gateway")
QUIET_S = 1.0
_KNOWN = 1000


class Refusals:
    """One per gateway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, int], tuple[float, int]] = {}

    def note(self, channel_type: str, status: int, body: Mapping[str, Any]) -> None:
        """A request for a channel was answered with `status` (400 or more) and the problem `body`."""
        key, now = (channel_type[:50], status), self._clock()
        told_at, unsaid = self._told.get(key, (-QUIET_S, 0))
        if now - told_at < QUIET_S:
            self._told[key] = (told_at, unsaid + 1)
            return
        if len(self._told) >= _KNOWN:
            self._told.clear()
        self._told[key] = (now, 0)
        reason = " ".join(str(body.get(part)) for part in ("what", "why") if body.get(part))
        _log.warning("refused", channel=key[0], status=status, reason=reason, more_since_the_last=unsaid)
