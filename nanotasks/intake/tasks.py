"""Intake: routing one chat (any worker), and appending to one session (the host that has its files).

A session of this host is appended to at once, in the task that routed; that saves a signal on the way of every
message. A session whose agent runs is not woken: the agent sees its new rows by itself.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from nanotasks import logs, signals
from nanotasks.celery_app import app
from nanotasks.central import database
from nanotasks.channels import registry
from nanotasks.errors import DependencyDownError, NanotasksError
from nanotasks.intake import append, service
from nanotasks.runtimes.contract import RuntimeDownError
from nanotasks.runtimes.select import runtime
from nanotasks.settings import Settings, settings

_log = logs.get("intake")


@app.task(name="intake.route", bind=True)
def route(self: Any, channel_type: str, platform_id: str, *_later: object) -> None:
    """Route what is pending in one chat and pass it on to the sessions; and the same for all chats that rang since."""
    signals.answer(_route, "route", channel_type, platform_id, task_id=self.request.id)


@app.task(name="intake.append", bind=True)
def append_to_session(self: Any, session_id: str, *_later: object) -> None:
    """Append what waits for one session of this host, and for all that rang since."""
    config = settings()
    signals.answer(
        lambda one, _host_id: _append(config, one), "append", session_id, config.host_id, task_id=self.request.id
    )


def _route(channel_type: str, platform_id: str) -> None:
    config = settings()
    result = service.route_chat(
        database(config),
        config,
        channel_type,
        platform_id,
        capabilities=lambda channel: registry.capabilities(channel, config),
    )
    for touched in result.touched.values():
        if touched.host_id == config.host_id:
            _append(config, touched.session_id)
        elif touched.host_id is not None:
            signals.ring("append", touched.session_id, touched.host_id)
    for session_id, host_id in result.answered.items():
        if host_id is not None:
            signals.ring("deliver", session_id, host_id)
    for target in result.typing:
        _show_typing(target)
    if result.more:
        signals.ring("route", channel_type, platform_id)


def _append(config: Settings, session_id: str) -> None:
    try:
        done = append.append_session(database(config), config.files_dir, session_id)
    except DependencyDownError:
        raise
    except NanotasksError as error:
        # Its routes stay pending, and the sweep finds them; the other sessions go on.
        _log.error("append_failed", session=session_id, error=str(error))
        if append.tell_of_failure(database(config), config, session_id):
            signals.ring("deliver", session_id, config.host_id)
        return
    if done.told:
        signals.ring("deliver", session_id, config.host_id)
    if done.trigger and not _is_alive(config, session_id):
        signals.ring("wake", session_id, config.host_id)


def _show_typing(target: service.TypingTarget) -> None:
    if target.host_id is not None:
        chat = asdict(target.address)
        begun = {"begun": target.session_id, "agent_group_id": target.agent_group_id}
        signals.poke(f"typing:{target.host_id}", chat | begun)


def _is_alive(config: Settings, session_id: str) -> bool:
    try:
        return runtime(config).is_alive(session_id)
    except RuntimeDownError:
        return False
