"""The tools of an agent, called in this process and over MCP."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner import tools
from agent_runner.outbound import REPLYING_TO
from agent_runner.paths import Workspace
from agent_runner.tools import tasks
from agent_runner.tools.send_file import safe_name
from agent_runner.tools.server import PROTOCOLS, handle, serve
from tests.unit.runner.by_hand import FAMILY, WORK, SessionByHand, recorded

RECORDED = recorded("tools")
OURS = [case for case in RECORDED["cases"] if case["tool"] in {tool.name for tool in tools.TOOLS}]
# A file name given by the model leads out of the outbox in the original; here its last part is used.
RENAMED = {"../escape.txt": "escape.txt"}


def prepared(tmp_path: Path, state: dict[str, Any]) -> tuple[SessionByHand, Workspace]:
    """The recorded state: rows, routing, destinations and files."""
    session = SessionByHand(tmp_path)
    session.destinations(*state["destinations"])
    if "routing" in state:
        session.routing(**state["routing"])
    for table, insert in (("rows_in", session.insert_inbound), ("rows_out", session.insert_outbound)):
        defaults = {"timestamp": "2026-01-01 00:00:00", "kind": "chat", "content": "{}"}
        rows = [{**defaults, **row} for row in state.get(table, [])]
        insert("messages_in" if table == "rows_in" else "messages_out", rows)
    (session.agent_dir / "adir").mkdir()
    for path, content in RECORDED["header"]["workspace_files"].items():
        file = tmp_path / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return session, Workspace(str(session.workspace), str(session.agent_dir), "")


@pytest.mark.parametrize("case", OURS, ids=lambda c: f"{c['tool']}-{c['state']}-{json.dumps(c['args'])}")
def test_recorded_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    """The same answer, the same rows, the same files."""
    monkeypatch.setattr(tasks, "local_zone", lambda: RECORDED["header"]["tz"])
    state = RECORDED["header"]["states"][case["state"]]
    session, workspace = prepared(tmp_path, state)
    if "in_reply_to" in case:
        row = {"key": REPLYING_TO, "value": case["in_reply_to"], "updated_at": ""}
        session.insert_outbound("session_state", [row])
    arguments = {
        name: value.replace("/workspace", str(session.workspace)) if name == "path" else value
        for name, value in case["args"].items()
    }
    result = tools.call(workspace, case["tool"], arguments)
    known = {row["id"] for row in state.get("rows_out", [])}
    new = [row for row in session.sent() if row["id"] not in known]
    names = {row["id"]: f"<{row['id'].partition('-')[0].upper()}{n}>" for n, row in enumerate(new, 1)}
    expected = case["out"]

    def normal(text: str) -> str:
        for row_id, name in names.items():
            text = text.replace(row_id, name)
        return text

    def renamed(text: str) -> str:
        for recorded_name, name in RENAMED.items():
            text = text.replace(recorded_name, name)
        return text

    assert normal(result.text) == renamed(expected["text"])
    assert result.is_error == expected["is_error"]
    got = [
        {
            **{name: value for name, value in row.items() if name != "timestamp"},
            "id": names[row["id"]],
            "content": normal(row["content"]),
        }
        for row in new
    ]
    assert got == [{**row, "content": renamed(row["content"])} for row in expected["rows"]]
    outbox = session.workspace / "outbox"
    files = {normal(str(f.relative_to(outbox))): f.read_text() for f in outbox.rglob("*") if f.is_file()}
    wanted = expected.get("outbox_files", {})
    assert files == {f"<MSG1>/{path.rpartition('/')[2]}": content for path, content in wanted.items()}


@pytest.mark.parametrize(
    ("tool", "arguments", "text"),
    [
        ("send_message", {}, "text is required"),
        ("send_message", {"text": ""}, "text is required"),
        ("send_message", {"text": None}, "text is required"),
        ("send_message", None, "text is required"),
        ("send_message", {"text": 5}, "text must be a string"),
        ("send_message", {"text": {"a": 1}}, "text must be a string"),
        ("send_message", {"text": "x", "to": ["family"]}, "to must be a string"),
        ("send_message", {"text": "x", "to": False}, "to must be a string"),
        ("send_message", [], "arguments must be an object"),
        (
            "send_message",
            {"text": "x"},
            'You have multiple destinations — specify "to". Options: family, work, worker-1',
        ),
        ("send_message", {"text": "x", "to": "Family"}, 'Unknown destination "Family". Known: family, work, worker-1'),
        ("send_file", {}, "path is required"),
        ("send_file", {"path": 5}, "path must be a string"),
        ("send_file", {"path": "none.txt", "to": "work"}, "File not found: none.txt"),
        ("send_file", {"path": "a\0b", "to": "work"}, "File not found: a\0b"),
        ("send_file", {"path": ".", "to": "work"}, "Not a file: ."),
        ("send_file", {"path": "/dev/zero", "to": "work"}, "Not a file: /dev/zero"),
        ("send_file", {"path": "x", "filename": 1}, "filename must be a string"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told_what_is_wrong(
    session: SessionByHand, workspace: Workspace, tool: str, arguments: Any, text: str
) -> None:
    """An error for the model to read; nothing is written."""
    assert tools.call(workspace, tool, arguments) == (f"Error: {text}", True)
    assert session.sent() == []
    assert list((session.workspace / "outbox").iterdir()) == []


def test_an_unknown_tool_is_named(workspace: Workspace) -> None:
    """Without the error flag, as in the original."""
    assert tools.call(workspace, "fly", {}) == ("Unknown tool: fly", False)


def test_a_fifo_is_no_file(session: SessionByHand, workspace: Workspace) -> None:
    """Reading one would never end."""
    os.mkfifo(session.agent_dir / "pipe")
    assert tools.call(workspace, "send_file", {"path": "pipe", "to": "work"}).text == "Error: Not a file: pipe"


def test_the_sessions_thread_is_for_its_own_chat(session: SessionByHand, workspace: Workspace) -> None:
    """Another chat does not know it."""
    session.routing("dc", "dc:g1", "th1")
    for name in ("work", "family", "worker-1", None):
        tools.call(workspace, "send_message", {"text": "x", "to": name})
    assert [row["thread_id"] for row in session.sent()] == ["th1", None, None, "th1"]


def test_a_single_destination_needs_no_name(session: SessionByHand, workspace: Workspace) -> None:
    """In a session without a conversation of its own."""
    session.destinations(WORK)
    assert tools.call(workspace, "send_message", {"text": "x"}).text == "Message sent to work (id: 1)"


def test_without_destinations_nothing_can_be_sent(session: SessionByHand, workspace: Workspace) -> None:
    """And that is said."""
    session.destinations()
    assert tools.call(workspace, "send_message", {"text": "x"}).text == "Error: No destinations configured."


def test_a_row_that_cannot_be_written_leaves_no_file(session: SessionByHand, workspace: Workspace) -> None:
    """The copy is taken back."""
    import sqlite3

    (session.agent_dir / "a.txt").write_text("x")
    db = sqlite3.connect(session.outbound)
    db.execute("DROP TABLE messages_out")
    db.close()
    result = tools.call(workspace, "send_file", {"path": "a.txt", "to": "work"})
    assert result.is_error
    assert list((session.workspace / "outbox").iterdir()) == []


def test_text_that_cannot_be_stored_is_mended(session: SessionByHand, workspace: Workspace) -> None:
    """Half a character becomes a replacement character."""
    assert not tools.call(workspace, "send_message", {"text": "a\ud83c", "to": "work"}).is_error
    assert session.texts() == ["a\ufffd"]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("report.txt", "report.txt"),
        ("../../evil.txt", "evil.txt"),
        ("/etc/passwd", "passwd"),
        ("a/b/", "b"),
        ("..\\..\\x.doc", "x.doc"),
        ("..", ""),
        (".", ""),
        ("", ""),
        ("/", ""),
        ("a\0b\nc.txt", "abc.txt"),
        (" .bashrc ", ".bashrc"),
        ("ünï .bin", "ünï .bin"),
        ("x\u202etxt.exe", "xtxt.exe"),
    ],
)
def test_file_names_lead_nowhere(wanted: str, name: str) -> None:
    """The last part, without what cannot be seen."""
    assert safe_name(wanted) == name


@given(st.text())
def test_every_file_name_is_safe(wanted: str) -> None:
    """The host would refuse anything else, and the file would be lost."""
    name = safe_name(wanted)
    assert "/" not in name and "\\" not in name and "\0" not in name
    assert name not in (".", "..")
    assert len(name.encode()) <= 200


def test_a_long_name_keeps_its_suffix() -> None:
    """So that the file still opens."""
    assert safe_name("é" * 300 + ".pdf").endswith("é.pdf")


def rpc(workspace: Workspace, method: str, params: Any = None, request_id: Any = 1) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    answer = handle(workspace, json.dumps(request))
    assert answer is not None and answer["id"] == request_id
    return answer


@pytest.mark.parametrize(
    ("wanted", "used"), [*((v, v) for v in PROTOCOLS), ("1999-01-01", PROTOCOLS[0]), (None, PROTOCOLS[0])]
)
def test_the_server_introduces_itself(workspace: Workspace, wanted: str | None, used: str) -> None:
    """With the client's version of the protocol, if it knows it."""
    assert rpc(workspace, "initialize", {"protocolVersion": wanted})["result"] == {
        "protocolVersion": used,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "nanoclaw", "version": "2.0.0"},
    }


def test_the_tools_are_listed_with_their_schemas(workspace: Workspace) -> None:
    """The recorded arguments, each with a type and a description."""
    listed = rpc(workspace, "tools/list")["result"]["tools"]
    assert [tool["name"] for tool in listed] == [
        "send_message",
        "send_file",
        "schedule_task",
        "list_tasks",
        "update_task",
        "cancel_task",
        "pause_task",
        "resume_task",
    ]
    for tool in listed:
        schema, wanted = tool["inputSchema"], RECORDED["header"]["tool_arguments"][tool["name"]]
        assert set(schema["properties"]) - {"zone", "ownSession"} == set(wanted["properties"])
        assert schema["required"] == wanted["required"]
        assert all({"type", "description"} <= set(p) for p in schema["properties"].values())


def test_a_tool_is_called_over_the_protocol(session: SessionByHand, workspace: Workspace) -> None:
    """One text item; the error flag only for errors."""
    params = {"name": "send_message", "arguments": {"to": "family", "text": "hi"}}
    assert rpc(workspace, "tools/call", params)["result"] == {
        "content": [{"type": "text", "text": "Message sent to family (id: 1)"}]
    }
    assert rpc(workspace, "tools/call", {"name": "send_message"})["result"]["isError"] is True
    assert session.texts() == ["hi"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("{", -32700),
        ("[" * 100_000, -32700),
        ("[]", -32600),
        ('{"id":1}', -32600),
        ('{"id":1,"method":"fly"}', -32601),
        ('{"id":1,"method":"tools/call"}', -32602),
        ('{"id":1,"method":"tools/call","params":[1]}', -32602),
    ],
)
def test_a_broken_request_gets_an_error(workspace: Workspace, line: str, code: int) -> None:
    """And the server goes on."""
    answer = handle(workspace, line)
    assert answer is not None and answer["error"]["code"] == code


def test_notifications_get_no_answer(workspace: Workspace) -> None:
    """Neither do empty lines."""
    out = io.StringIO()
    lines = ['{"jsonrpc":"2.0","method":"notifications/initialized"}\n', "\n", '{"id":7,"method":"ping"}\n']
    serve(workspace, lines, out)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [{"jsonrpc": "2.0", "id": 7, "result": {}}]


def test_the_destinations_of_the_session_are_read_live(session: SessionByHand, workspace: Workspace) -> None:
    """The host may change them while an agent runs."""
    session.destinations(FAMILY)
    assert tools.call(workspace, "send_message", {"text": "x", "to": "work"}).is_error
    session.destinations(FAMILY, WORK)
    assert not tools.call(workspace, "send_message", {"text": "x", "to": "work"}).is_error
