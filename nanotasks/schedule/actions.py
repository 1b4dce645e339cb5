"""What agents ask of the schedule by system rows: schedule, update, cancel, pause, resume (NanoClaw 2's payloads).

Everything is checked here again, whatever the runner's tool has checked, and may be repeated: a series is made once by
its id, and the other verbs lead to the same state twice. A request that says that it waits for an answer gets one, in a
row `resp-<its id>` of kind `system`; for any other, a refusal ends the request and tells the agent why, except that
cancelling, pausing and resuming what there is not is passed over in silence (NanoClaw 2's rule).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from nanotasks import logs
from nanotasks.central import Database
from nanotasks.central.series import TaskRun, TaskSeries
from nanotasks.central.sessions import AgentSession
from nanotasks.channels.contract import PermanentError
from nanotasks.clock import iso, now_ms
from nanotasks.deliver.actions import Request, register_action
from nanotasks.domain.compact_json import dumps
from nanotasks.domain.timestamps import read_ms
from nanotasks.errors import InvalidError, NanotasksError, NotFoundError
from nanotasks.schedule import series as verbs
from nanotasks.schedule.definition import Definition, Options, kind_of
from nanotasks.schedule.project import project
from nanotasks.schedule.times import next_times
from nanotasks.schedule.zones import zone_of
from nanotasks.session.inbound import open_inbound
from nanotasks.session.rows import NewRow
from nanotasks.settings import Settings

_log = logs.get("schedule")

# Fire times that an answer names.
SHOWN = 3
ANSWER_PREFIX = "resp-"


@dataclass(frozen=True)
class Done:
    """What an action did: the text for the agent, and the session whose file has to follow."""

    text: str
    session_id: str | None = None


Action = Callable[[Session, Settings, Request], Done]


def register() -> None:
    """Let agents ask for these actions."""
    for name, action in _ACTIONS.items():
        register_action(name, _handler(name, action))


def _handler(name: str, action: Action) -> Callable[[Database, Settings, Request], None]:
    def handle(db: Database, settings: Settings, request: Request) -> None:
        try:
            with db.write() as session:
                done = action(session, settings, request)
        except NanotasksError as error:
            _refuse(db, settings, request, name, error)
            return
        if done.session_id is not None:
            _follow(db, settings, request, done.session_id)
        if _awaits(request):
            _answer(settings, request, True, done.text)

    return handle


def _refuse(db: Database, settings: Settings, request: Request, name: str, error: NanotasksError) -> None:
    if isinstance(error, InvalidError | NotFoundError) or error.code == "conflict":
        if _awaits(request):
            _answer(settings, request, False, str(error))
            return
        if isinstance(error, NotFoundError) and name != "update_task":
            return
        raise PermanentError(str(error)) from error
    raise error


def _follow(db: Database, settings: Settings, request: Request, session_id: str) -> None:
    for kind, *ids in project(db, settings, session_id):
        request.signals.ring(kind, *ids)


def _awaits(request: Request) -> bool:
    return request.content.get("awaitsAnswer") is True


def _answer(settings: Settings, request: Request, ok: bool, text: str) -> None:
    """Answer the tool that waits, in a row that is never prompted; older answers that nobody read end here."""
    row_id = f"{ANSWER_PREFIX}{request.message_out_id}"
    content = {"type": "task_response", "requestId": request.message_out_id, "ok": ok, "text": text}
    row = NewRow(row_id, "system", dumps(content), now_ms(), trigger=0)
    with open_inbound(request.session.folder) as inbound, inbound.transaction():
        inbound.complete(
            [one for one, kind in inbound.open_rows().items() if kind == "system" and one.startswith("resp-")]
        )
        inbound.insert([row])


# The actions


def _schedule(session: Session, settings: Settings, request: Request) -> Done:
    content = request.content
    agent_session = session.get_one(AgentSession, request.session.id)
    zone = _text(content, "zone") or zone_of(session, settings, agent_session)
    recurrence_text = _text(content, "recurrence")
    kind = kind_of(recurrence_text)
    first_at = _moment(content, "processAfter")
    if kind == "once" and first_at is None:
        raise InvalidError("The task has no time.", fix="Give processAfter, or a recurrence.")
    definition = Definition(
        prompt=content.get("prompt") or "",
        kind=kind,
        expression=iso(first_at or 0) if kind == "once" else recurrence_text or "",
        zone=zone,
        first_at=first_at,
        script=_text(content, "script"),
        options=_options(content),
    )
    made = verbs.define(
        session,
        settings,
        agent_session,
        definition,
        created_by=f"agent:{agent_session.agent_group_id}",
        series_id=_text(content, "taskId") or request.message_out_id,
        own_session=content.get("ownSession") is True,
        address=_address(content),
    )
    return Done(_next_text(session, made), made.session_id)


def _options(content: Mapping[str, Any]) -> Options:
    options = Options()
    return Options(
        misfire=_text(content, "misfire") or options.misfire,
        overlap=_text(content, "overlap") or options.overlap,
    )


def _address(content: Mapping[str, Any]) -> tuple[str | None, str | None, str | None] | None:
    channel_type, platform_id = _text(content, "channelType"), _text(content, "platformId")
    return (channel_type, platform_id, _text(content, "threadId")) if channel_type and platform_id else None


def _update(session: Session, settings: Settings, request: Request) -> Done:
    content = request.content
    found = _found(session, request)
    kind: str | None
    expression: str | None
    if "recurrence" in content and content["recurrence"] is None:
        kind, expression = "once", None
    else:
        expression = _text(content, "recurrence")
        kind = kind_of(expression) if expression else None
    script = content.get("script")
    wanted = verbs.Change(
        prompt=_text(content, "prompt"),
        script="" if "script" in content and script is None else _text(content, "script"),
        kind=kind,
        expression=expression,
        zone=_text(content, "zone"),
        next_at=_moment(content, "processAfter"),
    )
    for one in found:
        verbs.change(session, settings, one, wanted)
    session.flush()
    return Done(_next_text(session, found[0]), found[0].session_id)


def _cancel(session: Session, _settings: Settings, request: Request) -> Done:
    found = _found(session, request)
    late = sum(verbs.cancel(session, one) for one in found)
    text = "Cancelled."
    if late:
        text = "It is cancelled, but too late for the run that is at work now."
    return Done(text, found[0].session_id)


def _pause(session: Session, _settings: Settings, request: Request) -> Done:
    found = _found(session, request)
    changed = [verbs.pause(session, one, None, "paused by the agent") for one in found]
    return Done("Paused." if any(changed) else "It was paused already.", found[0].session_id)


def _resume(session: Session, settings: Settings, request: Request) -> Done:
    found = _found(session, request)
    changed = [verbs.resume(session, settings, one) for one in found]
    session.flush()
    text = _next_text(session, found[0]) if any(changed) else "It was not paused."
    return Done(text, found[0].session_id)


_ACTIONS: dict[str, Action] = {
    "schedule_task": _schedule,
    "update_task": _update,
    "cancel_task": _cancel,
    "pause_task": _pause,
    "resume_task": _resume,
}


def _found(session: Session, request: Request) -> list[TaskSeries]:
    """The live series that the request means: by its id, or by the id of one of its rows, of this agent group's."""
    wanted = _text(request.content, "taskId") or ""
    by_row = select(TaskRun.series_id).where(TaskRun.session_id == request.session.id, TaskRun.inbound_id == wanted)
    found = session.scalars(
        select(TaskSeries)
        .where(
            TaskSeries.agent_group_id == request.session.agent_group_id,
            or_(TaskSeries.id == wanted, TaskSeries.id.in_(by_row)),
            TaskSeries.state.in_(("active", "paused")),
        )
        .with_for_update()
    ).all()
    if not found:
        raise NotFoundError(f"There is no live task {wanted[:60]!r}.", fix="list_tasks shows those there are.")
    return list(found)


def _next_text(session: Session, series: TaskSeries) -> str:
    """When the task runs next, three times at most, by the clock of its zone."""
    times = next_times(session, series, SHOWN)
    if not times:
        return "Nothing is planned."
    shown = ", ".join(text for _, text in times)
    return f"Next {'run' if len(times) == 1 else 'runs'} ({series.zone}): {shown}"


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    return value if isinstance(value, str) and value.strip() else None


def _moment(content: Mapping[str, Any], name: str) -> int | None:
    text = _text(content, name)
    if text is None:
        return None
    moment = read_ms(text)
    if moment is None or not 0 <= moment < 253_402_300_800_000:
        raise InvalidError(f"{name} is no time: {text[:40]!r}.", fix="Use a form such as 2026-12-01T09:00:00Z.")
    return moment
