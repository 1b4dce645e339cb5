"""A session by hand, and a runner on it in a thread, with a provider that says what a test wants."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_runner import clock, tools
from agent_runner.config import Config
from agent_runner.failures import Backoff, classify
from agent_runner.loop import Runner
from agent_runner.paths import Workspace
from agent_runner.providers.contract import Event, Init, Prompt, ProviderOptions, QueryInput, Result
from tests.unit.runner.by_hand import FAMILY, WORK, WORKER, SessionByHand

Script = Callable[[str], list[Any]]


class ScriptedProvider:
    """Answers each input with what `script` returns for its text.

    That is a list of events, texts of results (None too), functions to call, errors to raise, or `ENDS`.
    `prompts` is what it was given, `queries` how it was opened.
    """

    name = "mock"

    def __init__(self, script: Script, *, native_commands: bool = False, continuation: str | None = "c1") -> None:
        self.script = script
        self.native_commands = native_commands
        self.continuation = continuation
        self.prompts: list[str] = []
        self.queries: list[QueryInput] = []

    def query(self, start: QueryInput) -> ScriptedQuery:
        self.queries.append(start)
        return ScriptedQuery(self, start)

    def classify(self, error: BaseException) -> str:
        return classify(error)


class ScriptedQuery:
    def __init__(self, provider: ScriptedProvider, start: QueryInput) -> None:
        self._provider = provider
        self._inputs: queue.SimpleQueue[Prompt | None] = queue.SimpleQueue()
        self.push(start.prompt)

    def push(self, prompt: Prompt) -> None:
        self._provider.prompts.append(prompt.text)
        self._inputs.put(prompt)

    def end(self) -> None:
        self._inputs.put(None)

    def abort(self) -> None:
        self._inputs.put(None)

    def events(self) -> Iterator[Event]:
        if self._provider.continuation:
            yield Init(self._provider.continuation)
        while (prompt := self._inputs.get()) is not None:
            for item in self._provider.script(prompt.text):
                if item is ENDS:
                    return
                if isinstance(item, Exception):
                    raise item
                if callable(item):
                    item()
                else:
                    yield Result(item) if item is None or isinstance(item, str) else item


ENDS = object()


class Running:
    """A runner in a thread."""

    def __init__(self, session: SessionByHand, provider: Any, *, config: Config | None = None, **options: Any) -> None:
        workspace = Workspace(str(session.workspace), str(session.agent_dir), "")
        self.error: BaseException | None = None
        self._made = threading.Event()
        self._make = functools.partial(
            Runner, workspace, config or Config(), provider, backoff=Backoff(first_s=0.01), **options
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def trouble(self) -> bool:
        """Whether the runner waits for its files to become usable."""
        return self._made.is_set() and self._runner._trouble is not None

    def stop(self) -> None:
        assert self._made.wait(10)
        self._runner.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._runner = self._make()  # in the thread that uses it, as SQLite wants
            self._made.set()
            self._runner.run()
        except BaseException as error:
            self.error = error


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prompts show UTC, as those that were recorded."""
    monkeypatch.setenv("TZ", "UTC")
    clock.local_zone.cache_clear()
    yield
    clock.local_zone.cache_clear()


@pytest.fixture
def session(tmp_path: Path) -> SessionByHand:
    """A session wired to two chats and another agent."""
    made = SessionByHand(tmp_path)
    made.destinations(FAMILY, WORK, WORKER)
    return made


@pytest.fixture
def start(session: SessionByHand) -> Iterator[Callable[..., Running]]:
    """Start a runner on the session, `start(provider)`. It is stopped after the test, and must not have failed."""
    started: list[Running] = []

    def begin(provider: Any, **options: Any) -> Running:
        started.append(Running(session, provider, **options))
        return started[-1]

    yield begin
    for running in started:
        running.stop()
        assert running.error is None


@pytest.fixture
def workspace(session: SessionByHand) -> Workspace:
    return Workspace(str(session.workspace), str(session.agent_dir), "")


@pytest.fixture
def options(workspace: Workspace) -> ProviderOptions:
    """What a provider is made with, with the real tools on the session."""
    return ProviderOptions("Andy", {}, {}, (), None, None, functools.partial(tools.call, workspace))
