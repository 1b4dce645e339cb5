"""A conversation with the demo agent."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, NamedTuple

from agent_runner.failures import NETWORK, OVERLOAD, RATE_LIMIT, SESSION, ProviderError, classify
from agent_runner.providers.contract import (
    Activity,
    Event,
    Prompt,
    ProviderOptions,
    QueryInput,
    Result,
    ToolEnded,
    ToolStarted,
)
from agent_runner.providers.demo.commands import HELP, HINT, Command, parse, standard_answer
from agent_runner.providers.demo.prompt import Heard, is_notice, read, refusal
from agent_runner.tools import ToolResult

_TICK_S = 0.5
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CONTINUATION = "demo-"
_MESSAGES = {
    RATE_LIMIT: "rate limit exceeded (429)",
    OVERLOAD: "the service is overloaded (529)",
    NETWORK: "connection reset by peer",
    SESSION: "no conversation found with that id",
}


class DemoProvider:
    name = "demo"
    native_commands = False

    def __init__(self, options: ProviderOptions) -> None:
        self.call_tool = options.call_tool
        self.failures_left: dict[str, int] = {}

    def query(self, start: QueryInput) -> DemoQuery:
        return DemoQuery(self, start)

    def classify(self, error: BaseException) -> str:
        return classify(error)


class DemoQuery:
    """Answers one input after the other. The continuation carries how many messages it has answered."""

    def __init__(self, provider: DemoProvider, start: QueryInput) -> None:
        self._provider = provider
        self._inputs: SimpleQueue[Prompt | None] = SimpleQueue()
        self._aborted = threading.Event()
        self.answered = _counted(start.continuation)
        self._answer_to: str | None = None
        self.push(start.prompt)

    def push(self, prompt: Prompt) -> None:
        self._inputs.put(prompt)

    def end(self) -> None:
        self._inputs.put(None)

    def abort(self) -> None:
        self._aborted.set()
        self._inputs.put(None)

    def events(self) -> Iterator[Event]:
        while (prompt := self._inputs.get()) is not None and not self._aborted.is_set():
            blocks: list[str] = []
            if is_notice(prompt):
                self._apologise(prompt, blocks)
            else:
                yield from self._answer_all(prompt, blocks)
            if not self._aborted.is_set():
                text = "\n".join(blocks) or "<internal>Nothing to say.</internal>"
                yield Result(text, continuation=f"{_CONTINUATION}{self.answered}")

    def _answer_all(self, prompt: Prompt, blocks: list[str]) -> Iterator[Event]:
        context: list[tuple[str | None, str, str]] = []
        for heard in read(prompt):
            if not heard.asks:
                context.append((heard.origin, heard.sender, heard.text))
                continue
            self._answer_to = heard.origin
            seen = [(sender, text) for origin, sender, text in context if origin == heard.origin]
            yield from _Answer(self, heard, seen, blocks).events()
            self.answered += 1
            context = [entry for entry in context if entry[0] != heard.origin]

    def _apologise(self, prompt: Prompt, blocks: list[str]) -> None:
        refused = refusal(prompt)
        if refused and self._answer_to:
            text = f"I have no destination named {refused.unknown}. I can write to: {refused.known}."
            blocks.append(block(self._answer_to, text))

    def wait(self, seconds: float) -> Iterator[Event]:
        """Pass the time with signs of life."""
        left = seconds
        while left > 0 and not self._aborted.wait(min(left, _TICK_S)):
            left -= _TICK_S
            yield Activity()

    def call_tool(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        return self._provider.call_tool(name, arguments)

    def fail(self, kind: str, times: int) -> None:
        """Raise an error of `kind`, the first `times` times (0: always); then it works again."""
        left = self._provider.failures_left
        if times and left.setdefault(kind, times) == 0:
            del left[kind]
            return
        if times:
            left[kind] -= 1
        retry_after = 0.2 if kind in (RATE_LIMIT, OVERLOAD, NETWORK) else None
        raise ProviderError(_MESSAGES.get(kind, "the demo provider was asked to fail"), kind, retry_after)


class _Answer(NamedTuple):
    """What is done about one message."""

    query: DemoQuery
    heard: Heard
    context: list[tuple[str, str]]
    blocks: list[str]

    def events(self) -> Iterator[Event]:
        heard = self.heard
        if heard.sender == "system" or HINT in heard.text:
            return
        command = Command("") if heard.kind == "webhook" else parse(heard.text)
        act = _ACTS.get(command.verb)
        if act is None:
            yield from self.say(self._standard())
        else:
            yield from act(self, command)

    def _standard(self) -> str:
        if self.heard.kind == "task":
            return f"It is time: {self.heard.text}"
        if self.heard.kind == "webhook":
            return f"{self.heard.sender} reports: {self.heard.text}"
        return standard_answer(self.heard.sender, self.heard.text, self.context)

    def say(self, text: str) -> Iterator[Event]:
        """Answer where the message came from: in the result, or with a tool when that could not carry it."""
        if self.heard.origin is not None and can_be_wrapped(self.heard.origin, text):
            self.blocks.append(block(self.heard.origin, text))
        else:
            yield from self.send("send_message", {"text": text, "to": self.heard.origin})

    def send(self, tool: str, arguments: dict[str, Any]) -> Iterator[Event]:
        yield ToolStarted(tool, f"mcp__nanoclaw__{tool}")
        outcome = self.query.call_tool(tool, arguments)
        yield ToolEnded(tool)
        if outcome.is_error:
            self.blocks.append(outcome.text)

    def help(self, _command: Command) -> Iterator[Event]:
        return self.say(HELP)

    def echo(self, command: Command) -> Iterator[Event]:
        return self.say(command.text)

    def several(self, command: Command) -> Iterator[Event]:
        parts = [part.strip() for part in command.text.split("|")]
        for number in range(int(command.number)):
            yield from self.say(parts[number % len(parts)])

    def forward(self, command: Command) -> Iterator[Event]:
        self.blocks.append(block(command.name, command.text))
        return iter(())

    def silent(self, _command: Command) -> Iterator[Event]:
        self.blocks.append("<internal>I was asked to be silent.</internal>")
        return iter(())

    def slow(self, command: Command) -> Iterator[Event]:
        yield from self.query.wait(command.number)
        yield from self.say(command.text or f"That took {command.number:g} seconds.")

    def tool(self, command: Command) -> Iterator[Event]:
        yield from self.send("send_message", {"text": command.text, "to": self.heard.origin})
        self.blocks.append("Done.")

    def file(self, command: Command) -> Iterator[Event]:
        import tempfile

        with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="demo-") as file:
            file.write(command.text + "\n")
            file.flush()
            arguments = {"path": file.name, "filename": command.name, "to": self.heard.origin}
            yield from self.send("send_file", {**arguments, "text": "Here is your file."})
        self.blocks.append("Done.")

    def remind(self, command: Command) -> Iterator[Event]:
        return self._schedule(command.text, _in(command.number * _SECONDS[command.name.lower()]))

    def repeat(self, command: Command) -> Iterator[Event]:
        """Every so often: the first time after one such span."""
        number, unit = command.name.lower().removeprefix("every").strip()[:-1], command.name[-1].lower()
        return self._schedule(command.text, _in(int(number) * _SECONDS[unit]), command.name)

    def cron(self, command: Command) -> Iterator[Event]:
        """By the clock: the host finds the first time, since the tool wants one."""
        return self._schedule(command.text, None, command.name)

    def _schedule(self, text: str, at: str | None, recurrence: str | None = None) -> Iterator[Event]:
        arguments = {"prompt": text, "processAfter": at, "recurrence": recurrence}
        yield from self._task_tool("schedule_task", arguments)

    def tasks(self, _command: Command) -> Iterator[Event]:
        return self._task_tool("list_tasks", {})

    def pause(self, command: Command) -> Iterator[Event]:
        return self._task_tool("pause_task", {"taskId": command.name})

    def resume(self, command: Command) -> Iterator[Event]:
        return self._task_tool("resume_task", {"taskId": command.name})

    def cancel(self, command: Command) -> Iterator[Event]:
        return self._task_tool("cancel_task", {"taskId": command.name})

    def _task_tool(self, tool: str, arguments: dict[str, Any]) -> Iterator[Event]:
        """Call a tool and say what it said."""
        yield ToolStarted(tool, f"mcp__nanoclaw__{tool}")
        outcome = self.query.call_tool(tool, arguments)
        yield ToolEnded(tool)
        yield from self.say(outcome.text)

    def tell_count(self, _command: Command) -> Iterator[Event]:
        return self.say(f"I have answered {self.query.answered} messages in this conversation.")

    def fail(self, command: Command) -> Iterator[Event]:
        self.query.fail(command.name or "other", int(command.number))
        return self.say("It works again.")

    def crash(self, _command: Command) -> Iterator[Event]:
        os._exit(1)


_ACTS: dict[str, Callable[[_Answer, Command], Iterator[Event]]] = {
    "help": _Answer.help,
    "echo": _Answer.echo,
    "say": _Answer.several,
    "to": _Answer.forward,
    "silent": _Answer.silent,
    "slow": _Answer.slow,
    "tool": _Answer.tool,
    "file": _Answer.file,
    "remind": _Answer.remind,
    "every": _Answer.repeat,
    "cron": _Answer.cron,
    "tasks": _Answer.tasks,
    "pause": _Answer.pause,
    "resume": _Answer.resume,
    "cancel": _Answer.cancel,
    "count": _Answer.tell_count,
    "fail": _Answer.fail,
    "crash": _Answer.crash,
}


def _in(seconds: float) -> str:
    """A time so many seconds from now, as the tools take it."""
    now = time.time() + seconds
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + "Z"


def block(to: str, text: str) -> str:
    return f'<message to="{to}">{text}</message>'


def can_be_wrapped(to: str, text: str) -> bool:
    """Whether a block brings this text over unchanged."""
    return '"' not in to and not any(tag in text for tag in ("</message>", "<internal>", "</internal>"))


def _counted(continuation: str | None) -> int:
    number = (continuation or "").removeprefix(_CONTINUATION)
    return int(number) if number.isdecimal() else 0
