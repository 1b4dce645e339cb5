"""What follows a committed change: projections into session files, folders that go.

A change is done when its transaction is committed; what is here makes it visible sooner, and a failure of it is
said, not raised. Session files are touched only on the host that owns them: elsewhere the projection follows when
the session is woken next, and the folder stays for its host's operator.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING

from nanotasks.agents.projection import project_group
from nanotasks.errors import NanotasksError
from nanotasks.session import directories
from nanotasks.session.layout import SessionFolder
from nanotasks.settings import Settings

if TYPE_CHECKING:
    from nanotasks.central import Database
    from nanotasks.central.sessions import AgentSession


def project_destinations(db: Database, settings: Settings, group_ids: Iterable[str]) -> list[str]:
    """Show running agents of these groups their destinations; what could not be done, in words."""
    failures = []
    for group_id in group_ids:
        try:
            project_group(db, settings, group_id)
        except (NanotasksError, OSError, sqlite3.Error) as error:
            failures.append(f"The running agents of {group_id} will see this at their next start: {error}")
    return failures


def remove_folders(settings: Settings, sessions: Iterable[AgentSession]) -> list[str]:
    """Remove the folders of deleted sessions that are here; what could not be removed, in words."""
    failures = []
    for one in sessions:
        root = SessionFolder.of(settings.files_dir, one.agent_group_id, one.id).root
        if not root.exists():
            continue
        try:
            with directories.opened(root.parent) as parent:
                directories.remove(parent, root.name)
        except (NanotasksError, OSError) as error:
            failures.append(f"The folder {root} is still there: {error}")
    return failures
