"""A provider for tests of the runner: every prompt is answered by a function of its text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from agent_runner.failures import classify
from agent_runner.providers.contract import Activity, Event, Init, Prompt, ProviderOptions, QueryInput, Result


def default_reply(prompt: str) -> str:
    return f"Mock response to: {prompt[:100]}"


class MockProvider:
    name = "mock"
    native_commands = False

    def __init__(
        self, options: ProviderOptions | None = None, *, reply: Callable[[str], str | None] = default_reply
    ) -> None:
        self._reply = reply

    def query(self, start: QueryInput) -> MockQuery:
        return MockQuery(start, self._reply)

    def classify(self, error: BaseException) -> str:
        return classify(error)


class MockQuery:
    """One result per input, in order; after `end` what was pushed before it is still answered."""

    def __init__(self, start: QueryInput, reply: Callable[[str], str | None]) -> None:
        self._reply = reply
        self._inputs: SimpleQueue[Prompt | None] = SimpleQueue()
        self._aborted = False
        self.push(start.prompt)

    def push(self, prompt: Prompt) -> None:
        self._inputs.put(prompt)

    def end(self) -> None:
        self._inputs.put(None)

    def abort(self) -> None:
        self._aborted = True
        self._inputs.put(None)

    def events(self) -> Iterator[Event]:
        yield Activity()
        yield Init(f"mock-session-{int(time.time() * 1000)}")
        while (prompt := self._inputs.get()) is not None and not self._aborted:
            yield Activity()
            yield Result(self._reply(prompt.text))
