"""Whether the databases are whole: the central one, and the session files of this host (promise I10)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text

from nanotasks.central import Database
from nanotasks.central.groups import AgentGroup
from nanotasks.errors import NanotasksError
from nanotasks.session.layout import SessionFolder
from nanotasks.session.outbound import ReadLimits, open_outbound
from nanotasks.settings import Settings

_OPEN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Result:
    """What was checked and the finding: `ok`, or the first thing that is wrong."""

    file: str
    result: str


def check(db: Database, config: Settings) -> list[Result]:
    """Check the central database and every session file of this host."""
    results = [Result(db.url.render_as_string(hide_password=True), _central(db))]
    elsewhere = _groups_elsewhere(db, config) if config.storage == "shared" else frozenset()
    for root in sorted((config.files_dir / "sessions").glob("*/*")):
        if root.parent.name in elsewhere:
            continue
        # Beside its sessions an agent group has folders of its own, such as `.claude-shared`.
        if not root.name.startswith(".") and not root.is_symlink() and root.is_dir():
            results += _session(SessionFolder(root), ReadLimits.of(config))
    return results


def _groups_elsewhere(db: Database, config: Settings) -> frozenset[str]:
    """Groups whose files are in the shared directory, and opened by another host."""
    with db.read() as session:
        return frozenset(session.scalars(select(AgentGroup.id).where(AgentGroup.host_id != config.host_id)))


def _central(db: Database) -> str:
    with db.read() as session:
        if db.dialect != "sqlite":
            # PostgreSQL checks its own pages when it reads them.
            session.execute(text("SELECT 1"))
            return "ok"
        found = [str(row[0]) for row in session.execute(text("PRAGMA integrity_check(1)"))]
        found += [f"foreign key of {row[0]} row {row[1]}" for row in session.execute(text("PRAGMA foreign_key_check"))]
    return next((finding for finding in found if finding != "ok"), "ok")


def _session(folder: SessionFolder, limits: ReadLimits) -> list[Result]:
    return [
        Result(str(folder.inbound_db), _inbound(folder.inbound_db)),
        Result(str(folder.outbound_db), _outbound(folder, limits)),
    ]


def _inbound(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_OPEN_TIMEOUT_S)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    return found[0] if found else "ok"


def _outbound(folder: SessionFolder, limits: ReadLimits) -> str:
    """The agent's file is read as the host always reads it; whether it is whole is the agent's own business."""
    try:
        with open_outbound(folder, limits) as outbound:
            outbound.max_rowid()
    except (NanotasksError, sqlite3.Error) as error:
        return str(error)
    return "ok"
