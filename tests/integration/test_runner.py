"""The agent runner as its own process, on session files that were made with the documented SQL alone."""

from __future__ import annotations

import json
import re
import select
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runner.by_hand import FAMILY, WORK, WORKER, SessionByHand, chat

ARGV = [sys.executable, "-P", "-s", "-m", "agent_runner"]


class Agent:
    """One runner process."""

    def __init__(self, session: SessionByHand, **environment: str) -> None:
        self.log_path = session.workspace.parent / "agent.log"
        self._log = self.log_path.open("ab")
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            ARGV, env={**session.environment(), **environment}, stderr=subprocess.PIPE, stdout=self._log
        )

    def wait_for_log(self, event: str, seconds: float = 10.0) -> float:
        """Read the log until `event`; seconds since the start."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.process.stderr], [], [], 0.1)[0]:
                line = self.process.stderr.readline()
                self._log.write(line)
                self._log.flush()
                if f" {event}".encode() in line:
                    return time.perf_counter() - self.began
                if not line:
                    break
        raise AssertionError(f"no {event} in the log: {self.log()}")

    def log(self) -> str:
        return self.log_path.read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        assert self.process.stderr is not None
        self._log.write(self.process.stderr.read())
        self._log.close()
        self.process.stderr.close()
        return self.process.wait(10)


@pytest.fixture(params=["split", "flat"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> SessionByHand:
    """A session in our layout (the host's files apart) and in the original's (everything in one folder)."""
    return wired(tmp_path, split=request.param == "split")


@pytest.fixture
def one_session(tmp_path: Path) -> SessionByHand:
    """A session in our layout."""
    return wired(tmp_path, split=True)


def wired(tmp_path: Path, *, split: bool) -> SessionByHand:
    made = SessionByHand(tmp_path, split=split)
    made.destinations(FAMILY, WORK, WORKER)
    made.routing("tg", "tg:100")
    made.configure(provider="demo", assistantName="Andy")
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., Agent]]:
    """Start a runner; what still runs at the end is killed."""
    agents: list[Agent] = []

    def begin(session: SessionByHand, **environment: str) -> Agent:
        agents.append(Agent(session, **environment))
        return agents[-1]

    yield begin
    for agent in agents:
        if agent.process.poll() is None:
            agent.end(signal.SIGKILL)


Start = Callable[..., Agent]


def wait_for_answers(session: SessionByHand, count: int) -> None:
    session.wait(lambda: list(session.acks().values()).count("completed") >= count, f"{count} answers")


def check(session: SessionByHand) -> None:
    """Both files are sound."""
    for path in (session.inbound, session.outbound):
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        db.close()


def test_a_message_in_an_answer_out(session: SessionByHand, start: Start) -> None:
    """In either layout; the process ends when it is asked to."""
    first = session.post(chat("hello"))
    agent = start(session)
    session.wait_done(first)
    second = session.post(chat("echo again"))
    session.wait_done(second)
    assert agent.end() == 0
    assert [row["in_reply_to"] for row in session.sent()] == [first, second]
    assert session.texts()[0].startswith("Hello Ann! You said: hello")
    assert session.acks() == {first: "completed", second: "completed"}
    assert [row["seq"] % 2 for row in session.sent()] == [1, 1]
    assert (session.workspace / ".heartbeat").exists()
    check(session)


def test_a_commit_wakes_it_at_once(session: SessionByHand, start: Start) -> None:
    """In milliseconds, not at the next look; the bound allows for a busy machine."""
    agent = start(session)
    agent.wait_for_log("ready")
    taken = []
    for number in range(15):
        row = session.post(chat(f"echo {number}"))
        began = time.perf_counter()
        session.wait_done(row)
        taken.append(time.perf_counter() - began)
    assert statistics.median(taken) < 0.3
    agent.end()


def test_it_starts_fast_and_stays_small(one_session: SessionByHand, start: Start) -> None:
    """The bounds are generous: 0.05 s and 17 MiB are usual."""
    times = []
    for _ in range(3):
        agent = start(one_session)
        times.append(agent.wait_for_log("ready"))
        one_session.wait_done(one_session.post(chat("help")))
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None and int(resident[1]) < 30 * 1024
        assert agent.end() == 0
    assert min(times) < 0.4


def test_it_imports_little(one_session: SessionByHand) -> None:
    """What a start does not need is not loaded."""
    code = "import sys, agent_runner.__main__; print(*sys.modules)"
    argv = [sys.executable, "-P", "-s", "-c", code]
    loaded = subprocess.run(argv, env=one_session.environment(), capture_output=True, text=True, check=True).stdout
    heavy = {"asyncio", "dataclasses", "inspect", "logging", "pathlib", "random", "shutil", "subprocess", "tempfile"}
    assert heavy.isdisjoint(loaded.split())


def test_sigterm_in_mid_turn(one_session: SessionByHand, start: Start) -> None:
    """It ends within a second, leaves the claim, and the next start answers."""
    row = one_session.post(chat("slow 30"))
    quick = one_session.post(chat("echo after"))
    agent = start(one_session)
    one_session.wait(lambda: one_session.acks().get(row) == "processing", "a claim")
    began = time.monotonic()
    assert agent.end() == 0
    assert time.monotonic() - began < 1
    assert one_session.acks() == {row: "processing", quick: "processing"}
    assert one_session.sent() == []
    db = sqlite3.connect(one_session.inbound)
    db.execute("UPDATE messages_in SET content = ? WHERE id = ?", (chat("echo quicker"), row))
    db.commit()
    db.close()
    start(one_session)
    one_session.wait_done(row, quick)
    assert one_session.texts() == ["quicker", "after"]
    check(one_session)


def test_kill_in_mid_turn_loses_and_doubles_nothing(one_session: SessionByHand, start: Start) -> None:
    """Killed again and again while it works off a backlog: every message is answered, once."""
    one_session.configure(maxMessagesPerPrompt=1)
    rows = [one_session.post(chat(f"slow 0.02 answer {number}")) for number in range(40)]
    for number in range(6):
        agent = start(one_session)
        agent.wait_for_log("ready")
        wait_for_answers(one_session, 4 * (number + 1))
        time.sleep(0.003 * number)
        assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    start(one_session)
    one_session.wait_done(*rows, seconds=30)
    assert one_session.texts() == [f"answer {number}" for number in range(40)]
    assert set(one_session.acks().values()) == {"completed"}
    check(one_session)


def test_a_crash_leaves_the_claim_for_the_host(one_session: SessionByHand, start: Start) -> None:
    """The process dies in its turn; nothing is half-written, and another message is not lost with it."""
    row = one_session.post(chat("crash"))
    agent = start(one_session)
    assert agent.finish() == 1
    assert one_session.acks() == {row: "processing"}
    assert one_session.sent() == []
    check(one_session)


def test_a_kill_in_the_turn_of_a_task(session: SessionByHand, start: Start) -> None:
    """Its report says when it was claimed and nothing else; the next claim overwrites that."""

    def report() -> dict[str, Any]:
        (found,) = session.read("SELECT * FROM task_reports")
        return found

    row = session.post(json.dumps({"prompt": "slow 1"}), kind="task")
    agent = start(session)
    agent.wait_for_log("prompt")
    assert agent.end(signal.SIGKILL) == -signal.SIGKILL
    killed = report()
    assert {name for name, value in killed.items() if value is not None} == {"message_id", "claimed_at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", killed["claimed_at"])
    start(session)
    session.wait_done(row)
    ended = report()
    assert (ended["outcome"], ended["error"]) == ("succeeded", None)
    assert killed["claimed_at"] < ended["claimed_at"] < ended["ended_at"]
    assert "That took 1 seconds." in ended["result"]
    assert session.texts() == ["That took 1 seconds."]
    check(session)


def test_a_stale_claim_and_tool_are_cleared(one_session: SessionByHand, start: Start) -> None:
    """Whatever wrote them is dead."""
    row = one_session.post(chat("echo x"))
    one_session.insert_outbound(
        "processing_ack", [{"message_id": row, "status": "processing", "status_changed": "2026-01-01 00:00:00"}]
    )
    tool = {"id": 1, "current_tool": "Bash", "tool_declared_timeout_ms": 9, "tool_started_at": "x", "updated_at": "x"}
    one_session.insert_outbound("container_state", [tool])
    start(one_session)
    one_session.wait_done(row)
    assert one_session.read("SELECT current_tool FROM container_state") == [{"current_tool": None}]


class ToolServer:
    """The MCP server as a provider starts it: a process beside the runner."""

    def __init__(self, session: SessionByHand) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent_runner.tools"],
            env=session.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.send(method, **params)
        return self.receive()

    def send(self, method: str, **params: Any) -> None:
        assert self._process.stdin is not None
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        result: dict[str, Any] = json.loads(self._process.stdout.readline())["result"]
        return result

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(10) == 0


def test_a_tool_in_another_process_knows_what_is_answered(one_session: SessionByHand, start: Start) -> None:
    """The original's loses it: the id is only in the runner's memory there."""
    context = one_session.post(chat("chatter"), trigger=0, channel_type="dc", platform_id="dc:g1")
    row = one_session.post(chat("slow 30"))
    start(one_session)
    one_session.wait(lambda: one_session.acks().get(row) == "processing", "a claim")
    server = ToolServer(one_session)
    assert server.ask("initialize")["serverInfo"]["name"] == "nanoclaw"
    answer = server.ask("tools/call", name="send_message", arguments={"text": "working on it"})
    server.close()
    assert answer == {"content": [{"type": "text", "text": "Message sent to (current conversation) (id: 5)"}]}
    (sent,) = one_session.sent()
    assert sent["in_reply_to"] == row != context


def test_the_tool_server_waits_for_a_host_that_answers(one_session: SessionByHand) -> None:
    """It reads the session's configuration itself, and passes on what the host says of the schedule."""
    one_session.configure(provider="demo", hostAnswers=True)
    server = ToolServer(one_session)
    for number, (ok, said) in enumerate(((True, "Next: soon"), (False, "no such task"))):
        server.send("tools/call", name="pause_task", arguments={"taskId": "t1"})
        request = one_session.wait(lambda count=number: one_session.sent()[count:], "a request")[0]
        answer = {"type": "task_response", "requestId": request["id"], "ok": ok, "text": said}
        one_session.post(json.dumps(answer), id=f"resp-{request['id']}", kind="system", trigger=0)
        result = server.receive()
        expected = "Task pause requested: t1\nNext: soon" if ok else "Error: no such task"
        assert (result["content"][0]["text"], result.get("isError", False)) == (expected, not ok)
        assert one_session.acks()[f"resp-{request['id']}"] == "completed"
    server.close()


def test_many_writers_never_take_the_same_seq(one_session: SessionByHand, start: Start) -> None:
    """The runner, three tool servers and the host, flat out: no error, no collision, every seq odd and growing."""
    start(one_session)
    servers = [ToolServer(one_session) for _ in range(3)]
    rows = []
    for number in range(25):
        for server in servers:
            server.send("tools/call", name="send_message", arguments={"text": f"tool {number}", "to": "work"})
        rows.append(one_session.post(chat(f"echo {number}")))
    for server in servers:
        for _ in range(25):
            assert "isError" not in server.receive()
        server.close()
    one_session.wait_done(*rows, seconds=20)
    seqs = [row["seq"] for row in one_session.read("SELECT seq FROM messages_out ORDER BY rowid")]
    assert len(seqs) == 100
    assert seqs == sorted(set(seqs))
    assert all(seq % 2 == 1 for seq in seqs)
    check(one_session)


def test_an_unknown_provider_is_a_configuration_error(one_session: SessionByHand, start: Start) -> None:
    """The messages stay pending until that is mended."""
    one_session.configure(provider="oracle")
    row = one_session.post()
    agent = start(one_session)
    assert agent.finish() == 78
    assert "Unknown provider: oracle. Known: demo, mock" in agent.log()
    assert row not in one_session.acks()


def test_what_people_write_stays_out_of_the_log(one_session: SessionByHand, start: Start) -> None:
    """Only ids, unless somebody looks closely."""
    for level, seen in (("info", False), ("debug", True)):
        agent = start(one_session, NANOTASKS_LOG_LEVEL=level)
        row = one_session.post(chat("the secret word is xyzzy"))
        one_session.wait_done(row)
        agent.end()
        assert ("xyzzy" in agent.log()) is seen
        assert f"ids={row}" in agent.log()


def test_files_that_are_no_databases_end_it(one_session: SessionByHand, start: Start) -> None:
    """With the reason, rather than in silence."""
    one_session.outbound.write_bytes(b"not a database" * 100)
    agent = start(one_session)
    assert agent.finish() == 1
    assert "file is not a database" in agent.log()


def test_an_attachment_is_where_the_prompt_says(one_session: SessionByHand, start: Start) -> None:
    """The path is real for a child process too."""
    content = chat("see", attachments=[{"name": "a.txt", "type": "file", "localPath": "inbox/m2/a.txt"}])
    folder = one_session.workspace / "inbox" / "m2"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    start(one_session)
    one_session.wait_done(one_session.post(content))
    path = re.search(r"saved to (\S+)\]", one_session.texts()[0])
    assert path is not None and Path(path[1]).read_text() == "x"


def test_on_wake_rows_are_for_a_start(one_session: SessionByHand, start: Start) -> None:
    """A running agent leaves them to its successor."""
    agent = start(one_session)
    agent.wait_for_log("ready")
    wake = one_session.post(chat("echo awake"), on_wake=1)
    one_session.wait_done(one_session.post(chat("echo now")))
    assert one_session.texts() == ["now"]
    agent.end()
    start(one_session)
    one_session.wait_done(wake)
    assert one_session.texts() == ["now", "awake"]


def test_a_hot_journal_of_the_host_is_waited_out(one_session: SessionByHand, start: Start) -> None:
    """A host that died while writing leaves a file that cannot be read until it is back; the agent bears that."""
    real = one_session.inbound.resolve()
    agent = start(one_session)
    agent.wait_for_log("ready")
    code = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "db.execute('PRAGMA cache_size = 1'); db.execute('BEGIN IMMEDIATE');"
        "db.executemany('INSERT INTO messages_in (id, kind, timestamp, content) VALUES (?, ?, ?, ?)',"
        " [(f'x{n}', 'chat', '', 'y' * 3000) for n in range(50)]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(real)], check=True)
    assert real.with_name("inbound.db-journal").exists()
    agent.wait_for_log("files_unusable")
    row = one_session.post(chat("echo back"))
    one_session.wait_done(row)
    assert one_session.texts() == ["back"]
    assert list(one_session.acks()) == [row]
