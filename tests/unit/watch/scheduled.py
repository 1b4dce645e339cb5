"""Rows of scheduled tasks, as the schedule writes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from nanotasks.central.series import TaskRun, TaskSeries
from tests.scene import Speaker


def run(session: Session, andy: Speaker, series: str = "s", *, at: int = 1, due_at: int = 0, **values: Any) -> None:
    """A run of a series, with the series where it is not there yet."""
    if session.get(TaskSeries, series) is None:
        session.add(
            TaskSeries(
                id=series,
                agent_group_id=andy.agent_id,
                session_id=andy.id,
                prompt="p",
                kind="once",
                expression="",
                zone="UTC",
                attempts_max=3,
                retry_classes="",
                failures_max=5,
                created_by="test",
                created_at=1,
                updated_at=1,
            )
        )
        session.flush()
    session.add(
        TaskRun(
            id=f"run-{series}-{at}",
            series_id=series,
            session_id=andy.id,
            scheduled_for=at,
            due_at=due_at,
            inbound_id=f"{series}-{at}",
            created_at=1,
            updated_at=1,
            **values,
        )
    )
    session.flush()
