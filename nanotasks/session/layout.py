"""Where a session's files are, and how they come to be.

    <data>/sessions/<agent group>/<session>/
      host/                    the host's; the agent sees it read-only at /host
        inbound.db               what the agent is told
        inbox/<message>/<file>   attachments of inbound messages
      workspace/               the agent's; mounted at /workspace, and hostile to us
        outbound.db              what the agent says
        .heartbeat               its time is the agent's last sign of life
        outbox/<message>/<file>  files of outbound messages
        inbound.db, inbox        links to ../host/inbound.db and ../host/inbox

The links are relative, so that they lead to the same files in a container and outside. They are for the runner:
the host always takes the real path and never looks at them.

`create` may be interrupted anywhere and repeated, by several processes at once. `host/inbound.db` appears last, and
both databases appear whole (built in memory, moved into place), so its presence says that outbound.db was there:
where that is missing afterwards, the agent removed it together with what it had said, and nobody but an operator
may decide to go on without. So `create` raises then, and every other call leaves the files as they are.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from nanotasks.domain.names import is_safe_name
from nanotasks.errors import ConfigError, HostileFileError, InvalidError
from nanotasks.session import directories
from nanotasks.session.statements import script

LINKS = {"inbound.db": "../host/inbound.db", "inbox": "../host/inbox"}
# SQLite refuses a path of more than 512 bytes, and appends `-journal` to it.
_MAX_DATABASE_PATH = 512 - len("-journal") - 1
_MAX_ID_BYTES = 200


@dataclass(frozen=True)
class SessionFolder:
    """The paths of one session. Making one touches no file."""

    root: Path

    @classmethod
    def of(cls, files_dir: Path, agent_group_id: str, session_id: str) -> Self:
        """The folder of a session. Raises `InvalidError` for an id that is no plain file name."""
        return cls(files_dir / "sessions" / _part(agent_group_id) / _part(session_id))

    @property
    def host(self) -> Path:
        return self.root / "host"

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    @property
    def inbound_db(self) -> Path:
        return self.host / "inbound.db"

    @property
    def inbox(self) -> Path:
        return self.host / "inbox"

    @property
    def outbound_db(self) -> Path:
        """Only for watching. To read it, `open_outbound`: the name may lead anywhere."""
        return self.workspace / "outbound.db"

    @property
    def outbox(self) -> Path:
        """Only for watching. To read it, `files.outbox_files`."""
        return self.workspace / "outbox"

    @property
    def heartbeat(self) -> Path:
        """Only for watching. To read it, `files.heartbeat_ms`."""
        return self.workspace / ".heartbeat"

    def create(self) -> None:
        """Make what is missing, and set right the links in the workspace. Idempotent; no agent may be running.

        Raises `HostileFileError` when the agent removed outbound.db or replaced a folder, and `ConfigError` when
        the path is too long for SQLite.
        """
        longest = len(os.fsencode(self.outbound_db))
        if longest > _MAX_DATABASE_PATH:
            raise ConfigError(
                f"The path of a session's database is too long: {self.outbound_db}",
                why=f"It has {longest} bytes, and SQLite opens at most {_MAX_DATABASE_PATH}.",
                fix="Set NANOTASKS_DATA_DIR to a folder with a shorter path.",
            )
        _make_durable(self.root)
        with directories.opened(self.root) as root, locked(root):
            if any([directories.make(root, "host"), directories.make(root, "workspace")]):
                os.fsync(root)
            with directories.opened(self.root, "host") as host, directories.opened(self.root, "workspace") as workspace:
                # A creator that died may have left it as its umask made it.
                os.fchmod(host, directories.FOLDER_MODE)
                directories.make(host, "inbox")
                directories.make(workspace, "outbox")
                self._create_databases(root, host, workspace)
                _link(workspace)

    def _create_databases(self, root: int, host: int, workspace: int) -> None:
        begun = directories.entry(workspace, "outbound.db") is not None
        finished = directories.entry(host, "inbound.db") is not None
        if finished and not begun:
            raise HostileFileError(
                f"The outbound.db of the session {self.root.name} is gone.",
                why="It was there when the session was made, and only the agent can remove it.",
                fix="Restore it from a backup, or close the session: the next message then begins a new one.",
            )
        if not begun:
            _place("outbound", root, workspace)
        if not finished:
            _place("inbound", root, host)


def _part(identifier: str) -> str:
    plain = is_safe_name(identifier) and identifier.isprintable() and not identifier.startswith(".")
    if not plain or len(identifier.encode()) > _MAX_ID_BYTES:
        raise InvalidError(
            f"{identifier!r} cannot name a folder.",
            fix=f"Use an id without slashes and leading dots, of at most {_MAX_ID_BYTES} bytes.",
        )
    return identifier


@contextmanager
def locked(root: int) -> Iterator[None]:
    """Hold the lock of the session's root folder, for as long as the temporary names in it are in use."""
    fcntl.flock(root, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(root, fcntl.LOCK_UN)


def _make_durable(folder: Path) -> None:
    """Make a folder and its parents; the name of each new one outlives a power cut."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_durable(folder.parent)
        folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    with directories.opened(folder) as opened:
        os.fsync(opened)


def _place(name: str, root: int, folder: int) -> None:
    """Put an empty database into `folder`, whole or not at all. The caller holds the root's lock."""
    temporary = f".new-{name}.db"
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
    with os.fdopen(file, "wb") as output:
        os.fchmod(file, directories.FILE_MODE)
        output.write(_empty_database(name))
        output.flush()
        os.fsync(file)
    os.rename(temporary, f"{name}.db", src_dir_fd=root, dst_dir_fd=folder)
    os.fsync(folder)


@cache
def _empty_database(name: str) -> bytes:
    memory = sqlite3.connect(":memory:")
    try:
        memory.executescript(script(name))
        return memory.serialize()
    finally:
        memory.close()


def _link(workspace: int) -> None:
    for name, target in LINKS.items():
        try:
            if os.readlink(name, dir_fd=workspace) == target:
                continue
        except OSError:
            pass
        directories.remove(workspace, name)
        os.symlink(target, name, dir_fd=workspace)
