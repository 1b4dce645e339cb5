"""The watcher: a commit in an agent's outbound.db is called out within milliseconds.

A runner commits by removing `outbound.db-journal` (its files are in DELETE mode; they change before that), so the
kernel is asked about entries removed from the workspaces of this host's live instances. Rules that lose nothing:

- a watch is added first, then the session is looked at once;
- events are read first, then the sessions are called out: what comes meanwhile is the next event;
- when the kernel dropped events, every session is called out;
- when an instance ends, its session is called out once more;
- a commit that only begins a turn is not called out (`glance`).

A workspace that cannot be watched (no inotify, or none left: a user has 128 instances and some thousand watches) is
polled every 100 ms instead, and inotify is asked for again now and then. The watcher follows nothing that an
agent made. It may die at any time: the sweep over running agents finds what
it did not call out.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select as select_rows

from nanotasks import logs, signals
from nanotasks.central.engine import Database
from nanotasks.central.hosts import Instance
from nanotasks.deliver.glance import Glance, glance, is_worth_a_round
from nanotasks.deliver.inotify import IN_DELETE, IN_IGNORED, IN_MOVED_TO, IN_Q_OVERFLOW, Event, Inotify
from nanotasks.errors import HostileFileError, NanotasksError
from nanotasks.session import SessionFolder, directories
from nanotasks.session.outbound import ReadLimits
from nanotasks.settings import Settings

_log = logs.get("watcher")

REREAD_S = 1.0
INOTIFY_AGAIN_S = 10.0
POLL_S = 0.1
GLANCE_S = 0.05
STOP_CHECK_S = 0.25

DATABASE = "outbound.db"
JOURNAL = "outbound.db-journal"
_COMMITS = {(JOURNAL, IN_DELETE), (DATABASE, IN_MOVED_TO)}

Listen = Callable[[Sequence[str], threading.Event], Iterator[tuple[str, Mapping[str, Any]]]]


class Watcher:
    """Watches the live instances of this host; `on_commit(session_id)` must return at once."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        on_commit: Callable[[str], None],
        *,
        listen: Listen = signals.listen,
        use_inotify: bool = True,
    ) -> None:
        self._db = db
        self._settings = settings
        self._on_commit = on_commit
        self._listen = listen
        self._use_inotify = use_inotify
        self._notices: Inotify | None = None
        self._watched: dict[str, int] = {}
        self._sessions: dict[int, str] = {}
        self._polled: dict[str, tuple[SessionFolder, object]] = {}
        self._folders: dict[str, SessionFolder] = {}
        self._glances: dict[str, Glance | None] = {}
        # One thread looks at all of them, and what it cannot read at once is worth a round anyway.
        self._limits = replace(ReadLimits.of(settings), deadline_s=GLANCE_S, lock_wait_s=GLANCE_S)

    def run(self, stop: threading.Event) -> None:
        """Watch until `stop` is set; may be run again."""
        poked_end, poke_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        over = threading.Event()
        listener = threading.Thread(target=self._hear, args=(poke_end, over), name="watcher-pokes", daemon=True)
        listener.start()
        try:
            self._watch(poked_end, stop)
        finally:
            over.set()
            os.close(poked_end)
            self._let_go()

    def _let_go(self) -> None:
        if self._notices is not None:
            self._notices.close()
        self._notices = None
        for known in (self._watched, self._sessions, self._polled, self._folders, self._glances):
            known.clear()

    def _hear(self, poke_end: int, over: threading.Event) -> None:
        try:
            for _poke in self._listen([f"instances:{self._settings.host_id}"], over):
                try:
                    os.write(poke_end, b"!")
                except BlockingIOError:
                    pass  # it is told already
                except BrokenPipeError:
                    return
        finally:
            # Only who writes may close it: its number is soon another file's.
            os.close(poke_end)

    def _watch(self, poked: int, stop: threading.Event) -> None:
        poll = select.poll()
        poll.register(poked, select.POLLIN)
        reread_at = inotify_at = 0.0
        while not stop.is_set():
            now = time.monotonic()
            if self._use_inotify and self._notices is None and now >= inotify_at:
                self._use_notices(poll)
                inotify_at = now + INOTIFY_AGAIN_S
            if now >= reread_at:
                self._follow_instances()
                reread_at = now + REREAD_S
            self._look_at_polled()
            pause = POLL_S if self._polled else STOP_CHECK_S
            ready = dict(poll.poll(pause * 1000))
            if poked in ready:
                if not os.read(poked, 4096):
                    # Nobody listens any more, and the end of the pipe would be news for ever.
                    poll.unregister(poked)
                    _log.warning("no_pokes", fallback="reading the instances")
                reread_at = 0.0
            if self._notices is not None and self._notices.fileno() in ready:
                self._glance_at(self._meant(self._notices.read()))

    def _use_notices(self, poll: select.poll) -> None:
        try:
            self._notices = Inotify()
        except OSError as error:
            _log.warning("no_inotify", error=str(error), fallback="polling")
            return
        poll.register(self._notices, select.POLLIN)
        # What was polled is taken for new with the next reading, and looked at once.
        self._polled.clear()

    # Which sessions are watched

    def _follow_instances(self) -> None:
        try:
            live = self._live_sessions()
        except NanotasksError as error:
            _log.warning("instances_not_read", error=str(error))
            return
        known = {*self._watched, *self._polled}
        for session_id in known - live.keys():
            self._forget(session_id)
            self._call_out([session_id])
        for session_id in live.keys() - known:
            if self._add(session_id, live[session_id]):
                self._call_out([session_id])

    def _live_sessions(self) -> dict[str, SessionFolder]:
        with self._db.read_core() as connection:
            rows = connection.execute(
                select_rows(Instance.session_id, Instance.agent_group_id).where(
                    Instance.host_id == self._settings.host_id, Instance.ended_at.is_(None)
                )
            ).all()
        return {
            session_id: SessionFolder.of(self._settings.files_dir, group_id, session_id)
            for session_id, group_id in rows
        }

    def _add(self, session_id: str, folder: SessionFolder) -> bool:
        try:
            with directories.opened(folder.root, "workspace") as workspace:
                watch = self._notices.add(workspace, IN_DELETE | IN_MOVED_TO) if self._notices is not None else None
        except (FileNotFoundError, HostileFileError):
            return False  # not made yet, or not a folder: looked at again with the next reading
        except OSError as error:
            _log.warning("workspace_polled", session=session_id, error=str(error))
            watch = None
        self._folders[session_id] = folder
        self._glances[session_id] = glance(folder, self._limits)
        if watch is None:
            self._polled[session_id] = (folder, _state(folder))
        else:
            self._watched[session_id] = watch
            self._sessions[watch] = session_id
        return True

    def _forget(self, session_id: str) -> None:
        for known in (self._polled, self._folders, self._glances):
            known.pop(session_id, None)
        watch = self._watched.pop(session_id, None)
        if watch is not None:
            self._sessions.pop(watch, None)
            if self._notices is not None:
                self._notices.remove(watch)

    # What happened in them

    def _meant(self, events: Iterable[Event]) -> list[str]:
        """The sessions in which something was committed, or may have been."""
        found: dict[str, None] = {}
        for event in events:
            if event.mask & IN_Q_OVERFLOW:
                _log.warning("events_lost")
                return list(self._watched)
            session_id = self._sessions.get(event.watch)
            if session_id is None:
                continue
            if event.mask & IN_IGNORED:
                # The folder is gone, and the kernel ended the watch.
                self._watched.pop(session_id, None)
                self._sessions.pop(event.watch, None)
            elif any(event.name == name and event.mask & mask for name, mask in _COMMITS):
                found[session_id] = None
        return list(found)

    def _look_at_polled(self) -> None:
        changed = []
        for session_id, (folder, before) in self._polled.items():
            state = _state(folder)
            if state != before:
                self._polled[session_id] = (folder, state)
                changed.append(session_id)
        self._glance_at(changed)

    def _glance_at(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            before, now = self._glances.get(session_id), glance(self._folders[session_id], self._limits)
            self._glances[session_id] = now
            if is_worth_a_round(before, now):
                self._on_commit(session_id)

    def _call_out(self, session_ids: Iterable[str]) -> None:
        for session_id in session_ids:
            self._on_commit(session_id)


def _state(folder: SessionFolder) -> object:
    """What changes with a commit. The file changes before it, and its journal goes with it."""
    try:
        with directories.opened(folder.root, "workspace") as workspace:
            database = directories.entry(workspace, DATABASE)
            journal = directories.entry(workspace, JOURNAL)
    except (OSError, HostileFileError):
        return None
    facts = (database.st_ino, database.st_mtime_ns, database.st_size) if database else None
    return facts, journal is not None
