"""Bringing a session's file in line with its scheduled tasks, as a task of the host that has the file."""

from __future__ import annotations

from nanotasks import signals
from nanotasks.celery_app import app
from nanotasks.central import database
from nanotasks.schedule.project import project
from nanotasks.settings import settings


@app.task(name="schedule.project")
def project_session(session_id: str, *_later: object) -> None:
    """Write what is planned, withdraw what is not to run, and note what the agent has taken."""
    signals.answered("project", session_id)
    config = settings()
    for kind, *ids in project(database(config), config, session_id):
        signals.ring(kind, *ids)
