"""The typing indicator: a chat shows that its agent is at work for as long as a turn runs (NanoClaw 2's timing).

    begun       a message was routed to the session: shown at once, and again every `typing_refresh_s`
    goes on     for `typing_grace_s` after that without any sign of life, then while the heartbeat is younger than
                `typing_fresh_s`
    paused      for `typing_pause_s` after a delivery, since the platform clears it and the turn may be over
    ends        when the heartbeat is old, or the agent has ended

State is in the keeper's memory only: a typing indicator that is lost by a restart is no loss. It is driven by
pokes on `typing:<host>`, so anybody may say `{"begun": session_id, "agent_group_id", "channel_type", "platform_id",
"thread_id"}`, `{"delivered": session_id}` or `{"ended": session_id}`. Errors of channels are swallowed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from nanotasks import logs, signals
from nanotasks.channels import registry
from nanotasks.channels.contract import Address, TypingSender
from nanotasks.clock import now_ms
from nanotasks.deliver import calls
from nanotasks.deliver.pool import Job, LanePool
from nanotasks.errors import NanotasksError
from nanotasks.session import SessionFolder
from nanotasks.session.files import heartbeat_ms
from nanotasks.settings import Settings

_log = logs.get("typing")

CALL_TIMEOUT_S = 5.0
CALLS = 4
MAX_SESSIONS = 1000

Listen = Callable[[Sequence[str], threading.Event], Iterator[tuple[str, Mapping[str, Any]]]]


@dataclass
class Shown:
    """A session whose agent is at work; times are `time.monotonic()`."""

    folder: SessionFolder
    address: Address
    grace_until: float
    next_at: float
    paused_until: float = 0.0
    call: Job | None = None


class TypingIndicator:
    """Shows typing in the chats of this host's busy sessions."""

    def __init__(self, settings: Settings, *, listen: Listen = signals.listen) -> None:
        self._settings = settings
        self._listen = listen
        self._shown: dict[str, Shown] = {}
        self._pool = LanePool(CALLS)
        self._pokes: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def run(self, stop: threading.Event) -> None:
        """Show typing until `stop` is set."""
        listener = threading.Thread(target=self._hear, args=(stop,), name="typing-pokes", daemon=True)
        listener.start()
        while not stop.is_set():
            self._take_poke(self._pause_s())
            self.tick(time.monotonic())

    def _hear(self, stop: threading.Event) -> None:
        for _topic, payload in self._listen([f"typing:{self._settings.host_id}"], stop):
            self._pokes.put(payload)

    def _pause_s(self) -> float:
        """Until the next one is due, a quarter of a second at most, so that the end is noticed."""
        first = min((shown.next_at for shown in self._shown.values()), default=0.0)
        return min(0.25, max(0.01, first - time.monotonic())) if self._shown else 0.25

    def _take_poke(self, timeout_s: float) -> None:
        try:
            self.poked(self._pokes.get(timeout=timeout_s), time.monotonic())
        except queue.Empty:
            pass

    def poked(self, payload: Mapping[str, Any], now: float) -> None:
        """Take in one poke; what is not understood is ignored."""
        if isinstance(begun := payload.get("begun"), str):
            self._begin(begun, payload, now)
        elif isinstance(delivered := payload.get("delivered"), str) and delivered in self._shown:
            self._shown[delivered].paused_until = now + self._settings.typing_pause_s
        elif isinstance(ended := payload.get("ended"), str):
            self._shown.pop(ended, None)

    def _begin(self, session_id: str, payload: Mapping[str, Any], now: float) -> None:
        names = ("agent_group_id", "channel_type", "platform_id")
        if not all(isinstance(payload.get(name), str) for name in names) or len(self._shown) >= MAX_SESSIONS:
            return
        try:
            folder = SessionFolder.of(self._settings.files_dir, payload["agent_group_id"], session_id)
        except NanotasksError:
            return
        address = Address(payload["channel_type"], payload["platform_id"], payload.get("thread_id"))
        if self._sender(address.channel_type) is not None:
            # A new message ends the pause, starts the grace anew, and moves the indicator to its own chat.
            self._shown[session_id] = Shown(folder, address, now + self._settings.typing_grace_s, next_at=now)

    def tick(self, now: float) -> None:
        """Show what is due, and end what has no sign of life any more."""
        for session_id, shown in list(self._shown.items()):
            if shown.next_at > now:
                continue
            shown.next_at = now + self._settings.typing_refresh_s
            if shown.paused_until > now:
                continue
            if now < shown.grace_until or self._is_alive(shown):
                self._show(shown)
            else:
                del self._shown[session_id]

    def _is_alive(self, shown: Shown) -> bool:
        beaten_ms = heartbeat_ms(shown.folder)
        return beaten_ms is not None and now_ms() - beaten_ms < self._settings.typing_fresh_s * 1000

    def _show(self, shown: Shown) -> None:
        if shown.call is None or shown.call.done.done():
            shown.call = self._pool.submit(lambda job: self._call(shown.address, job))

    def _call(self, address: Address, job: Job) -> None:
        job.busy_until = time.monotonic() + CALL_TIMEOUT_S
        sender = self._sender(address.channel_type)
        try:
            if sender is not None:
                calls.finish(lambda: sender.set_typing(address), CALL_TIMEOUT_S)
        except Exception as error:
            _log.debug("typing_not_shown", channel_type=address.channel_type, error=repr(error))

    def _sender(self, channel_type: str) -> TypingSender | None:
        try:
            channel = registry.capabilities(channel_type, self._settings)
            if channel is None or not channel.supports_typing:
                return None
            return cast(TypingSender, registry.sender(channel_type, self._settings))
        except Exception as error:
            _log.debug("no_typing", channel_type=channel_type, error=repr(error))
            return None
