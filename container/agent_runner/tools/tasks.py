"""The tools for scheduled tasks: what is asked of the host as system rows, and what stands in the session's file.

Names, arguments and texts are NanoClaw 2's; `zone` and `ownSession` are ours. A host that answers (container.json says
`hostAnswers`) checks the schedule, so the tool waits for it a moment and passes on when the task runs next, or what is
wrong with it.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from agent_runner import config
from agent_runner.clock import local_zone
from agent_runner.ids import new_id
from agent_runner.inbound import Inbound
from agent_runner.outbound import Outbound
from agent_runner.paths import Workspace
from agent_runner.rows import NOWHERE, OutboundRow, Route
from agent_runner.tools import when
from agent_runner.tools.addressing import session_files
from agent_runner.tools.contract import Tool, ToolError
from agent_runner.values import field, parse_content, storable, text_or, to_json

PATIENCE_S = 5.0
_LOOK_S = 0.05
_SHOWN_CHARS = 80
_EVERY = re.compile(r"every\s+\d+\s*[a-z]+", re.IGNORECASE)
_FIELDS = "minute hour day month weekday"


def schedule(workspace: Workspace, arguments: dict[str, Any]) -> str:
    prompt, wanted = arguments.get("prompt"), arguments.get("processAfter")
    # Our host finds the first time of a recurrence by itself.
    by_host = bool(arguments.get("recurrence")) and _host_answers(workspace)
    if not prompt or not (wanted or by_host):
        raise ToolError("prompt and processAfter are required")
    at = _time(wanted, arguments.get("zone")) if wanted else None
    recurrence = _recurrence(arguments.get("recurrence"))
    row_id = new_id("task")
    with session_files(workspace) as (inbound, outbound):
        with inbound.open() as reader:
            route = reader.session_routing()
        content = {
            "action": "schedule_task",
            "taskId": row_id,
            "prompt": storable(prompt),
            "script": storable(arguments["script"]) if arguments.get("script") else None,
            "processAfter": at,
            "recurrence": recurrence,
            "platformId": route.platform_id,
            "channelType": route.channel_type,
            "threadId": route.thread_id,
        }
        content |= {name: arguments[name] for name in ("zone", "ownSession") if arguments.get(name)}
        facts = [
            f"id: {row_id}",
            *([f"runs at: {at}"] if at else []),
            *([f"recurrence: {recurrence}"] if recurrence else []),
        ]
        return f"Task scheduled ({', '.join(facts)})" + _ask(workspace, inbound, outbound, row_id, content, route)


def list_tasks(workspace: Workspace, arguments: dict[str, Any]) -> str:
    wanted = arguments.get("status")
    inbound = Inbound(workspace.inbound, workspace.outbound)
    with inbound.open() as reader:
        found = reader.tasks([wanted] if wanted else ["pending", "paused"])
    return "\n".join(_line(*row) for row in found) or "No tasks found."


def _line(series_id: str, status: str, at: str | None, recurrence: str | None, content: str) -> str:
    prompt = text_or(field(parse_content(content), "prompt"), "")[:_SHOWN_CHARS]
    recurs = f"recur={recurrence} " if recurrence else ""
    return f"- {series_id} [{status}] at={at or 'now'} {recurs}\u2192 {prompt}"


def update(workspace: Workspace, arguments: dict[str, Any]) -> str:
    task_id = _task_id(arguments)
    content: dict[str, Any] = {"action": "update_task", "taskId": task_id}
    if arguments.get("prompt") is not None:
        content["prompt"] = storable(arguments["prompt"])
    if arguments.get("recurrence") is not None:
        content["recurrence"] = _recurrence(arguments["recurrence"])
    if arguments.get("script") is not None:
        content["script"] = storable(arguments["script"]) or None
    if arguments.get("processAfter") is not None:
        content["processAfter"] = _time(arguments["processAfter"], arguments.get("zone"))
    if arguments.get("zone"):
        content["zone"] = arguments["zone"]
    if len(content) == 2:
        raise ToolError("at least one field to update is required")
    return _request(workspace, content, f"Task update requested: {task_id}")


def cancel(workspace: Workspace, arguments: dict[str, Any]) -> str:
    task_id = _task_id(arguments)
    return _request(workspace, {"action": "cancel_task", "taskId": task_id}, f"Task cancellation requested: {task_id}")


def pause(workspace: Workspace, arguments: dict[str, Any]) -> str:
    task_id = _task_id(arguments)
    return _request(workspace, {"action": "pause_task", "taskId": task_id}, f"Task pause requested: {task_id}")


def resume(workspace: Workspace, arguments: dict[str, Any]) -> str:
    task_id = _task_id(arguments)
    return _request(workspace, {"action": "resume_task", "taskId": task_id}, f"Task resume requested: {task_id}")


def _task_id(arguments: dict[str, Any]) -> str:
    task_id = arguments.get("taskId")
    if not task_id:
        raise ToolError("taskId is required")
    return storable(str(task_id))


def _time(text: str, zone: str | None) -> str:
    try:
        at = when.read(text, zone or local_zone())
    except ValueError as error:
        raise ToolError(str(error)) from error
    if at is None:
        raise ToolError(f"invalid processAfter: {text}")
    return at


def _recurrence(text: str | None) -> str | None:
    """What can be seen to be none of the three forms is refused; the host knows the rest."""
    stripped = (text or "").strip()
    if not stripped:
        return None
    count = len(stripped.split())
    if count != 5 and not stripped.startswith("@") and not _EVERY.fullmatch(stripped):
        counted = f"{count} field{'' if count == 1 else 's'}"
        raise ToolError(
            f"invalid recurrence: {text} has {counted}; use five ({_FIELDS}), a name like @daily, or every 15m"
        )
    return storable(text or "")


def _request(workspace: Workspace, content: dict[str, Any], told: str) -> str:
    with session_files(workspace) as (inbound, outbound):
        return told + _ask(workspace, inbound, outbound, new_id("sys"), content, NOWHERE)


def _ask(
    workspace: Workspace, inbound: Inbound, outbound: Outbound, row_id: str, content: dict[str, Any], route: Route
) -> str:
    """Write the request; what to add to its text. Raises `ToolError` when the host refuses it."""
    waits = _host_answers(workspace)
    if waits:
        content = {**content, "awaitsAnswer": True}
    with outbound.transaction():
        outbound.insert([OutboundRow(row_id, "system", route, to_json(content), None)])
    if not waits:
        return ""
    answer = _answer(inbound, f"resp-{row_id}")
    if answer is None:
        return "\nThe host has not confirmed it yet."
    with outbound.transaction():
        outbound.acknowledge([f"resp-{row_id}"], "completed")
    if field(answer, "ok") is not True:
        raise ToolError(text_or(field(answer, "text"), "the host refused it"))
    return f"\n{text_or(field(answer, 'text'), '')}".rstrip()


def _host_answers(workspace: Workspace) -> bool:
    return bool(workspace.config) and config.load(workspace.config).host_answers


def _answer(inbound: Inbound, row_id: str) -> Any:
    until = time.monotonic() + PATIENCE_S
    while True:
        with inbound.open() as reader:
            content = reader.answer(row_id)
        if content is not None:
            try:
                return json.loads(content)
            except ValueError:
                return {}
        if time.monotonic() >= until:
            return None
        time.sleep(_LOOK_S)


def _text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


_TASK_ID = {"taskId": _text("Id of the task, as schedule_task and list_tasks give it")}
_TIME = _text("When: a time such as 2026-12-01T09:00 in the conversation's time zone, or with an offset")
_RECURRENCE = _text("Five cron fields (0 9 * * mon-fri), @daily and the like, or every 15m")
_SCRIPT = _text("Bash that runs first; its last line of output is JSON with a boolean wakeAgent, and data for you")
_ZONE = _text("IANA time zone of the times, if not the conversation's own")


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str], run: Any) -> Tool:
    return Tool(name, description, {"type": "object", "properties": properties, "required": required}, run)


TOOLS = (
    _tool(
        "schedule_task",
        "Schedule a prompt for yourself, once or again and again. You will get it at its time, with no other message.",
        {
            "prompt": _text("What you are to do then"),
            "processAfter": _TIME,
            "recurrence": _RECURRENCE,
            "script": _SCRIPT,
            "zone": _ZONE,
            "ownSession": {"type": "boolean", "description": "Run apart from this conversation, without its context"},
        },
        ["prompt", "processAfter"],
        schedule,
    ),
    _tool(
        "list_tasks",
        "List your scheduled tasks.",
        {"status": _text("pending, paused, completed or failed; pending and paused when left out")},
        [],
        list_tasks,
    ),
    _tool(
        "update_task",
        "Change a scheduled task. An empty recurrence or script takes it away.",
        {
            **_TASK_ID,
            "prompt": _text("The new prompt"),
            "recurrence": _RECURRENCE,
            "processAfter": _TIME,
            "script": _SCRIPT,
            "zone": _ZONE,
        },
        ["taskId"],
        update,
    ),
    _tool("cancel_task", "Cancel a scheduled task for good.", _TASK_ID, ["taskId"], cancel),
    _tool("pause_task", "Pause a scheduled task until it is resumed.", _TASK_ID, ["taskId"], pause),
    _tool("resume_task", "Let a paused task go on.", _TASK_ID, ["taskId"], resume),
)
