"""When tasks run, in words: by the clock of their zone."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from nanotasks.domain import recurrence

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from nanotasks.central.series import TaskSeries


def local_text(at: int, zone: str) -> str:
    """A moment by the clock of a zone, such as `Mon 2 Mar 2026 09:00`."""
    local = datetime.fromtimestamp(at / 1000, ZoneInfo(zone))
    seconds = f":{local.second:02d}" if local.second else ""
    return f"{local:%a} {local.day} {local:%b %Y %H:%M}{seconds}"


def next_times(session: Session, series: TaskSeries, count: int) -> list[tuple[int, str]]:
    """The next times of a series and each in words: what is planned, then what its schedule brings."""
    from sqlalchemy import select

    from nanotasks.central.series import TaskRun
    from nanotasks.schedule.definition import schedule_of

    planned = select(TaskRun.due_at).where(
        TaskRun.series_id == series.id, TaskRun.state == "planned", TaskRun.origin == "schedule"
    )
    times = list(session.scalars(planned.order_by(TaskRun.due_at)))
    if series.state == "active" and series.kind != "once" and series.next_at is not None:
        times += recurrence.upcoming(schedule_of(series), series.zone, max([series.next_at, *times]), count)
    return [(at, local_text(at, series.zone)) for at in times[:count]] if series.state != "paused" else []


@functools.lru_cache(maxsize=4096)
def described(kind: str, expression: str, zone: str) -> str:
    """A schedule in a few words, as `recurrence.describe` says it."""
    return recurrence.describe(recurrence.parse(kind, expression), zone)
