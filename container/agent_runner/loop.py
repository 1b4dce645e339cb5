"""The runner: one thread that looks for due rows, has them answered, and commits what comes of it.

    wake ──► letters of other threads (provider events, scripts) ──► look for due rows ──► wait
      ▲                                                                                      │
      └──── a commit in inbound.db, a letter, a signal, a due time, or a look now and then ◄─┘

`intake` claims, `conversation` has things answered, `ledger` writes. A query stays open between turns; rows that
arrive while one runs are pushed into it and acknowledged with the turn that answers them.

On SIGTERM the loop ends after what it is doing, closes the query and leaves unanswered claims as they are: the next
start gives them back. The same happens, without the courtesy, when the process dies.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable

from agent_runner import faults, log
from agent_runner.config import Config
from agent_runner.conversation import Conversation
from agent_runner.failures import Backoff
from agent_runner.formatter import Formatter
from agent_runner.heartbeat import Heartbeat
from agent_runner.inbound import Inbound
from agent_runner.intake import Intake
from agent_runner.ledger import Ledger
from agent_runner.outbound import Outbound
from agent_runner.paths import Workspace
from agent_runner.providers.contract import Provider
from agent_runner.scripts import ScriptRunner
from agent_runner.turns import Turns
from agent_runner.wakeup import Wakeup

IDLE_LOOK_S = 1.0
TURN_LOOK_S = 0.5
# How long a file may be unreadable or locked before the process gives up, to be started afresh.
PATIENCE_S = 60.0
_STOP_WAIT_S = 0.5


class Runner:
    """One session's agent. `run` blocks until `stop`, which may be called from a signal handler."""

    def __init__(
        self,
        workspace: Workspace,
        config: Config,
        provider: Provider,
        *,
        backoff: Backoff | None = None,
        use_inotify: bool = True,
    ) -> None:
        self._stopping = False
        self._trouble: tuple[float, str] | None = None
        self._letters: deque[Callable[[], None]] = deque()
        self._wakeup = Wakeup(workspace.inbound, use_inotify=use_inotify)
        self._heartbeat = Heartbeat(workspace.heartbeat)
        self._turns = Turns()
        inbound = Inbound(workspace.inbound, workspace.outbound)
        self._ledger = Ledger(Outbound(workspace.outbound, inbound, create=True), provider.name)
        self._scripts = ScriptRunner(workspace.agent_dir, self._heartbeat.touch)
        self._conversation = Conversation(
            provider,
            self._ledger,
            self._turns,
            inbound,
            self._heartbeat,
            self._post,
            workspace.agent_dir,
            backoff or Backoff(),
            config.host_answers,
        )
        self._intake = Intake(
            config,
            inbound,
            self._ledger,
            self._turns,
            self._conversation,
            Formatter(workspace.root),
            self._scripts,
            self._post,
            provider.native_commands,
        )

    def stop(self) -> None:
        self._stopping = True
        self._wakeup.ring()

    def run(self) -> None:
        """Serve the session. Raises `sqlite3.Error` when its files stay unusable."""
        self._ledger.recover()
        faults.point("turn.after_recover")
        self._heartbeat.touch()
        ready = False
        try:
            while not self._stopping:
                self._wakeup.watch()
                self._try(self._work)
                if not ready:
                    log.info("ready", inotify=self._wakeup.watching)
                    ready = True
                self._wakeup.wait(self._pause())
            self._try(self._open_letters)
        finally:
            self._scripts.stop(_STOP_WAIT_S)
            self._conversation.drop(_STOP_WAIT_S)
            self._ledger.close()
            self._wakeup.close()
        log.info("stopped", unanswered=sorted(self._turns.held))

    def _work(self) -> None:
        self._open_letters()
        self._conversation.flush()
        while not self._stopping and self._intake.look():
            pass

    def _pause(self) -> float:
        if self._trouble or len(self._turns):
            retry = self._conversation.pause_left()
            if retry:
                self._heartbeat.touch()  # waiting on purpose is not being stuck
            return min(TURN_LOOK_S, retry or TURN_LOOK_S)
        return min(IDLE_LOOK_S, self._intake.due_in())

    def _post(self, letter: Callable[[], None]) -> None:
        """Have the loop call `letter`. From any thread."""
        self._letters.append(letter)
        self._wakeup.ring()

    def _open_letters(self) -> None:
        while self._letters:
            self._letters[0]()
            self._letters.popleft()  # only now: one that met a locked file is opened again

    def _try(self, action: Callable[[], None]) -> None:
        """Do something that needs the files. Trouble with them is logged once and borne for a while."""
        try:
            action()
        except sqlite3.DatabaseError as error:
            # A file that is read while it is being replaced or written across a share looks damaged for a moment;
            # any other subclass is a mistake of ours.
            if type(error) not in (sqlite3.OperationalError, sqlite3.DatabaseError):
                raise
            now, text = time.monotonic(), str(error)
            if self._trouble is None:
                log.warning("files_unusable", error=text)
                self._trouble = (now, text)
            elif now - self._trouble[0] > PATIENCE_S and self._letters:
                raise
        else:
            if self._trouble is not None:
                log.info("files_usable_again", after=self._trouble[1])
            self._trouble = None
